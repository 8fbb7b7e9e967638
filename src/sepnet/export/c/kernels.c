/* part: clamped */
static int8_t clamped(int64_t x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

/* part: normalize */
/* Pixels 0 to 255, in place, as int8: (pixel * factor + offset + 2^15) >> 16 for each channel. */
static void normalize(int8_t *image, int pixels, int channels, const int32_t *factor, const int32_t *offset)
{
    int i, c;
    for (i = 0; i < pixels; i++)
        for (c = 0; c < channels; c++, image++)
            *image = clamped((*(uint8_t *)image * factor[c] + offset[c] + (1 << 15)) >> 16);
}

/* part: convolution */
/* Sizes are of the input; weights of a depthwise convolution are (kernel, filters), of others (filters, kernel, C). */
struct convolution {
    const int8_t *weight;
    const int32_t *bias, *mantissa;
    const int8_t *shift;
    int height, width, channels, filters, groups;
    int kernel_height, kernel_width, stride_y, stride_x, top, left, dilation_y, dilation_x;
    int input_zero, output_zero;
};

/* The sum times mantissa * 2^-shift, to the nearest, a half up. */
static int8_t scaled(int32_t total, const struct convolution *layer, int filter)
{
    int shift = layer->shift[filter];
    int64_t product = (int64_t)total * layer->mantissa[filter] + ((int64_t)1 << (shift - 1));
    return clamped((product >> shift) + layer->output_zero);
}

/* part: depthwise */
#ifdef __arm__
#define LANES 4 /* sums that stay in registers */
#else
#define LANES 16
#endif

/* One pixel of a depthwise convolution, some channels at a time. */
static void depthwise(const struct convolution *layer, const int8_t *input, int y, int x, int8_t *output)
{
    const int each = layer->filters / layer->groups;
    const int top = y * layer->stride_y - layer->top, left = x * layer->stride_x - layer->left;
    int first, i, ky, kx;
    for (first = 0; first < layer->filters; first += LANES) {
        const int lanes = layer->filters - first < LANES ? layer->filters - first : LANES;
        int32_t total[LANES];
        for (i = 0; i < lanes; i++)
            total[i] = layer->bias[first + i];
        for (ky = 0; ky < layer->kernel_height; ky++) {
            const int row = top + ky * layer->dilation_y;
            if (row < 0 || row >= layer->height)
                continue;
            for (kx = 0; kx < layer->kernel_width; kx++) {
                const int column = left + kx * layer->dilation_x;
                const int8_t *pixel, *weight;
                if (column < 0 || column >= layer->width)
                    continue;
                pixel = input + (row * layer->width + column) * layer->channels;
                weight = layer->weight + (ky * layer->kernel_width + kx) * layer->filters + first;
                if (each > 1)
                    for (i = 0; i < lanes; i++)
                        total[i] += weight[i] * (pixel[(first + i) / each] - layer->input_zero);
                else if (lanes == LANES)
                    for (i = 0; i < LANES; i++)
                        total[i] += weight[i] * (pixel[first + i] - layer->input_zero);
                else
                    for (i = 0; i < lanes; i++)
                        total[i] += weight[i] * (pixel[first + i] - layer->input_zero);
            }
        }
        for (i = 0; i < lanes; i++)
            output[first + i] = scaled(total[i], layer, first + i);
    }
}

/* part: pointwise */
/* One pixel of a pointwise convolution, or a dense layer; the input's zero point is in the bias. */
static void pointwise(const struct convolution *layer, const int8_t *pixel, int8_t *output)
{
    const int channels = layer->channels;
    const int8_t *weight = layer->weight;
    int f, c;
    for (f = 0; f < layer->filters; f++, weight += channels) {
        int32_t total = layer->bias[f];
        for (c = 0; c < channels; c++)
            total += weight[c] * pixel[c];
        output[f] = scaled(total, layer, f);
    }
}

/* part: dense_kernel */
/* One pixel of any other convolution. */
static void convolve(const struct convolution *layer, const int8_t *input, int y, int x, int8_t *output)
{
    const int channels = layer->channels / layer->groups, each = layer->filters / layer->groups;
    const int top = y * layer->stride_y - layer->top, left = x * layer->stride_x - layer->left;
    int f, c, ky, kx;
    for (f = 0; f < layer->filters; f++) {
        int32_t total = layer->bias[f];
        for (ky = 0; ky < layer->kernel_height; ky++) {
            const int row = top + ky * layer->dilation_y;
            if (row < 0 || row >= layer->height)
                continue;
            for (kx = 0; kx < layer->kernel_width; kx++) {
                const int column = left + kx * layer->dilation_x;
                const int8_t *pixel, *weight;
                if (column < 0 || column >= layer->width)
                    continue;
                pixel = input + (row * layer->width + column) * layer->channels + f / each * channels;
                weight = layer->weight + ((f * layer->kernel_height + ky) * layer->kernel_width + kx) * channels;
                for (c = 0; c < channels; c++)
                    total += weight[c] * (pixel[c] - layer->input_zero);
            }
        }
        output[f] = scaled(total, layer, f);
    }
}

/* part: look_up */
static void look_up(const int8_t *table, const int8_t *input, int count, int8_t *output)
{
    int i;
    for (i = 0; i < count; i++)
        output[i] = table[input[i] + 128];
}

/* part: add */
struct sum {
    int32_t left_factor, right_factor;
    int left_zero, right_zero, shift, output_zero;
};

static void add(const struct sum *sum, const int8_t *left, const int8_t *right, int count, int8_t *output)
{
    int i;
    for (i = 0; i < count; i++) {
        int32_t total = (left[i] - sum->left_zero) * sum->left_factor + (right[i] - sum->right_zero) * sum->right_factor;
        output[i] = clamped(((total + ((int32_t)1 << (sum->shift - 1))) >> sum->shift) + sum->output_zero);
    }
}

/* part: window */
/* Pooling over the pixels that are there. */
struct window {
    int height, width, channels, out_height, out_width;
    int kernel_height, kernel_width, stride_y, stride_x, top, left;
};

/* part: max_pool */
static void max_pool(const struct window *window, const int8_t *input, int8_t *output)
{
    int y, x, c, row, column;
    for (y = 0; y < window->out_height; y++)
        for (x = 0; x < window->out_width; x++)
            for (c = 0; c < window->channels; c++) {
                const int top = y * window->stride_y - window->top, left = x * window->stride_x - window->left;
                int8_t best = -128;
                for (row = top < 0 ? 0 : top; row < top + window->kernel_height && row < window->height; row++)
                    for (column = left < 0 ? 0 : left; column < left + window->kernel_width && column < window->width;
                         column++) {
                        const int8_t value = input[(row * window->width + column) * window->channels + c];
                        best = value > best ? value : best;
                    }
                *output++ = best;
            }
}

/* part: average_pool */
/* The mean to the nearest, halves away from 0. */
static void average_pool(const struct window *window, const int8_t *input, int8_t *output)
{
    int y, x, c, row, column;
    for (y = 0; y < window->out_height; y++)
        for (x = 0; x < window->out_width; x++)
            for (c = 0; c < window->channels; c++) {
                const int top = y * window->stride_y - window->top, left = x * window->stride_x - window->left;
                int32_t total = 0, count = 0;
                for (row = top < 0 ? 0 : top; row < top + window->kernel_height && row < window->height; row++)
                    for (column = left < 0 ? 0 : left; column < left + window->kernel_width && column < window->width;
                         column++, count++)
                        total += input[(row * window->width + column) * window->channels + c];
                *output++ = (int8_t)((total < 0 ? total - count / 2 : total + count / 2) / count);
            }
}

/* part: average */
/* The mean of each channel over all pixels. */
static void average(const int8_t *input, int pixels, int channels, int input_zero, int32_t mantissa, int shift,
                    int output_zero, int8_t *output)
{
    int i, c;
    for (c = 0; c < channels; c++) {
        int32_t total = 0;
        for (i = 0; i < pixels; i++)
            total += input[i * channels + c] - input_zero;
        output[c] = clamped((((int64_t)total * mantissa + ((int64_t)1 << (shift - 1))) >> shift) + output_zero);
    }
}

/* part: copy_image */
/* An image into a larger one, the rest of which holds its zero point or is left as it is. */
static void copy_image(const int8_t *input, int height, int width, int channels, int8_t *output, int out_width,
                       int out_channels)
{
    int y, x, c;
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++)
            for (c = 0; c < channels; c++)
                output[(y * out_width + x) * out_channels + c] = *input++;
}

/* part: fill */
static void fill(int8_t *output, int count, int8_t value)
{
    int i;
    for (i = 0; i < count; i++)
        output[i] = value;
}
