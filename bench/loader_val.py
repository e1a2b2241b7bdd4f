"""Validation pictures from JPEG to uint8 pixels on one thread, against torchvision, OpenCV and libjpeg-turbo alone."""

import loader


def needs():
    return loader.needs()


def run(quick):
    return loader.measure("val", ["pil_val", "tensor_val", "tensor_uint8_val", "opencv_val"], quick, name="loader_val")
