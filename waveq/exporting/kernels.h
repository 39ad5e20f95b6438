#ifndef WAVEQ_KERNELS
#define WAVEQ_KERNELS

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* One convolution of one sample; a linear layer has one row and one column. Tensors are channels x rows x columns. */
typedef struct {
    int channels, height, width;
    int outputs, out_height, out_width;
    int kernel_height, kernel_width, stride_y, stride_x, top, left, dilation_y, dilation_x, groups;
} waveq_convolution;

/* Either codes, at `bits` each, or floats. Codes: the weight is scale * code; on a grid without a zero `odd` is 1, the
   weight is scale * (2 code + 1), and the scale is half the step. scale_stride is 0 for one scale, 1 for one a channel. */
typedef struct {
    const uint8_t *codes;
    const float *floats;
    const float *scale;
    const float *bias; /* or NULL */
    int bits, odd, scale_stride;
} waveq_weights;

typedef struct {
    int channels, height, width, out_height, out_width;
    int kernel_height, kernel_width, stride_y, stride_x, top, left;
    int average, count_padding, divisor; /* divisor 0: the size of the window */
} waveq_pooling;

/* Codes lie one after the other, the highest bit first, as code + 2^(bits - 1). One byte follows the last. */
static inline int waveq_code(const waveq_weights *weights, size_t index)
{
    size_t at = index * (size_t)weights->bits;
    unsigned window = (unsigned)weights->codes[at >> 3] << 8 | weights->codes[(at >> 3) + 1];
    unsigned stored = window >> (16 - (at & 7) - (size_t)weights->bits) & ((1u << weights->bits) - 1);
    int code = (int)stored - (1 << (weights->bits - 1));
    return weights->odd ? 2 * code + 1 : code;
}

/* sum(code * x) for every output, then one product with the scales. The row of an output is unpacked once. */
#define WAVEQ_CONVOLVE(NAME, NUMBER, SUM)                                                                             \
    static inline void NAME(const waveq_convolution *s, const waveq_weights *w, float input_scale, const NUMBER *x,   \
                            NUMBER *row, float *y)                                                                    \
    {                                                                                                                 \
        int inner = s->channels / s->groups, each = inner * s->kernel_height * s->kernel_width;                       \
        for (int o = 0; o < s->outputs; o++) {                                                                        \
            const NUMBER *from = x + (size_t)(o / (s->outputs / s->groups)) * inner * s->height * s->width;           \
            float scale = w->codes ? w->scale[o * w->scale_stride] * input_scale : 1.0f;                              \
            for (int i = 0; i < each; i++) {                                                                          \
                size_t at = (size_t)o * each + i;                                                                     \
                row[i] = w->codes ? (NUMBER)waveq_code(w, at) : (NUMBER)w->floats[at];                                \
            }                                                                                                         \
            for (int oy = 0; oy < s->out_height; oy++)                                                                \
                for (int ox = 0; ox < s->out_width; ox++) {                                                           \
                    SUM sum = 0;                                                                                      \
                    const NUMBER *weight = row;                                                                       \
                    for (int c = 0; c < inner; c++)                                                                   \
                        for (int ky = 0; ky < s->kernel_height; ky++) {                                               \
                            int iy = oy * s->stride_y - s->top + ky * s->dilation_y;                                  \
                            for (int kx = 0; kx < s->kernel_width; kx++, weight++) {                                  \
                                int ix = ox * s->stride_x - s->left + kx * s->dilation_x;                             \
                                if (iy >= 0 && iy < s->height && ix >= 0 && ix < s->width)                            \
                                    sum += (SUM)*weight * (SUM)from[((size_t)c * s->height + iy) * s->width + ix];    \
                            }                                                                                         \
                        }                                                                                             \
                    *y++ = scale * (float)sum + (w->bias ? w->bias[o] : 0.0f);                                        \
                }                                                                                                     \
        }                                                                                                             \
    }
WAVEQ_CONVOLVE(waveq_convolve, float, float)
WAVEQ_CONVOLVE(waveq_convolve_codes, int16_t, int32_t)

/* The code of an input: x / scale to the nearest whole number, ties to the even one. */
static inline float waveq_input_code(float x, float scale, int low, int high)
{
    float code = nearbyintf(x / scale);
    return code < (float)low ? (float)low : code > (float)high ? (float)high : code;
}

static inline void waveq_input_codes(int count, float scale, int low, int high, const float *x, int16_t *y)
{
    for (int i = 0; i < count; i++)
        y[i] = (int16_t)waveq_input_code(x[i], scale, low, high);
}

static inline void waveq_input_levels(int count, float scale, int low, int high, const float *x, float *y)
{
    for (int i = 0; i < count; i++)
        y[i] = scale * waveq_input_code(x[i], scale, low, high);
}

/* Batch norm: for each channel a factor and a summand. */
static inline void waveq_scale_shift(int channels, int size, const float *scale, const float *shift, const float *x,
                                     float *y)
{
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < size; i++)
            *y++ = *x++ * scale[c] + shift[c];
}

static inline void waveq_clip(int count, float low, float high, const float *x, float *y)
{
    for (int i = 0; i < count; i++)
        y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

static inline void waveq_add(int count, const float *a, const float *b, float *y)
{
    for (int i = 0; i < count; i++)
        y[i] = a[i] + b[i];
}

static inline int waveq_least(int a, int b) { return a < b ? a : b; }

/* The mean or the largest of one channel between rows and columns; what lies outside counts as zeros of the mean. */
static inline float waveq_over_window(const waveq_pooling *s, const float *x, int top, int bottom, int left, int right)
{
    int padded = (bottom - top) * (right - left), count;
    float sum = 0.0f, largest = -INFINITY;
    top = top < 0 ? 0 : top;
    left = left < 0 ? 0 : left;
    bottom = waveq_least(bottom, s->height);
    right = waveq_least(right, s->width);
    count = (bottom - top) * (right - left);
    for (int iy = top; iy < bottom; iy++)
        for (int ix = left; ix < right; ix++) {
            float value = x[iy * s->width + ix];
            sum += value;
            largest = value > largest ? value : largest;
        }
    return !s->average ? largest : sum / (float)(s->divisor ? s->divisor : s->count_padding ? padded : count);
}

static inline void waveq_pool(const waveq_pooling *s, const float *x, float *y)
{
    for (int c = 0; c < s->channels; c++, x += s->height * s->width)
        for (int oy = 0; oy < s->out_height; oy++)
            for (int ox = 0; ox < s->out_width; ox++) {
                int top = oy * s->stride_y - s->top, left = ox * s->stride_x - s->left;
                int bottom = waveq_least(top + s->kernel_height, s->height + s->top);
                int right = waveq_least(left + s->kernel_width, s->width + s->left);
                *y++ = waveq_over_window(s, x, top, bottom, left, right);
            }
}

/* Windows as even as they can be: from floor(i n / m) to ceil((i + 1) n / m). */
static inline void waveq_pool_adaptively(const waveq_pooling *s, const float *x, float *y)
{
    for (int c = 0; c < s->channels; c++, x += s->height * s->width)
        for (int oy = 0; oy < s->out_height; oy++)
            for (int ox = 0; ox < s->out_width; ox++) {
                int top = oy * s->height / s->out_height, left = ox * s->width / s->out_width;
                int bottom = ((oy + 1) * s->height + s->out_height - 1) / s->out_height;
                int right = ((ox + 1) * s->width + s->out_width - 1) / s->out_width;
                *y++ = waveq_over_window(s, x, top, bottom, left, right);
            }
}

#endif
