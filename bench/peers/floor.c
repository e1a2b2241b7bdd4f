// The physical floor: libjpeg-turbo decodes the rows and columns of each crop from memory, and nothing else is done.
//
// cc -O2 -o floor floor.c -ljpeg; floor BOXES REPEATS
// BOXES has a line `left top width height path` for each picture (written by `loader ROOT train SIZE boxes`).
// Prints images per CPU second.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

struct picture {
    unsigned left, top, width, height;
    unsigned char *bytes;
    unsigned long size;
};

static double cpu_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static unsigned char *rows;
static size_t room;

static void decode(const struct picture *picture) {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, picture->bytes, picture->size);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    JDIMENSION left = picture->left, width = picture->width;
    jpeg_crop_scanline(&info, &left, &width);
    if (picture->top > 0) jpeg_skip_scanlines(&info, picture->top);
    size_t stride = (size_t)info.output_width * 3;
    if (stride * picture->height > room) {
        room = stride * picture->height;
        free(rows);
        if (!(rows = malloc(room))) fail("malloc");
    }
    for (unsigned done = 0; done < picture->height;) {
        JSAMPROW row = rows + stride * done;
        done += jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_abort_decompress(&info);
    jpeg_destroy_decompress(&info);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: floor BOXES REPEATS\n");
        return 64;
    }
    FILE *boxes = fopen(arguments[1], "r");
    if (!boxes) fail(arguments[1]);
    size_t pictures = 0;
    struct picture *all = NULL, next;
    char path[4096];
    while (fscanf(boxes, "%u %u %u %u %4095[^\n]", &next.left, &next.top, &next.width, &next.height, path) == 5) {
        const char *name = path[0] == ' ' ? path + 1 : path;
        FILE *file = fopen(name, "rb");
        if (!file) fail(name);
        fseek(file, 0, SEEK_END);
        next.size = ftell(file);
        rewind(file);
        next.bytes = malloc(next.size);
        if (fread(next.bytes, 1, next.size, file) != next.size) fail(name);
        fclose(file);
        all = realloc(all, (pictures + 1) * sizeof *all);
        all[pictures++] = next;
    }
    int repeats = atoi(arguments[2]);
    for (size_t i = 0; i < pictures; i++) decode(&all[i]);
    double began = cpu_seconds();
    for (int repeat = 0; repeat < repeats; repeat++)
        for (size_t i = 0; i < pictures; i++) decode(&all[i]);
    printf("%.1f\n", pictures * repeats / (cpu_seconds() - began));
    return 0;
}
