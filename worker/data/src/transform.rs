//! From a decoded picture and a placement to the pixels a model sees: bilinear, antialiased, uint8.
