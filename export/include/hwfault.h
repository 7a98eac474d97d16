/* hwfault's fault stream as C functions. Semantics: docs/fault-stream.md and export/SPEC.md.
 *
 * Every function that returns int64_t returns a negative code on an error; hwfault_error_text() says which. */
#ifndef HWFAULT_H
#define HWFAULT_H

#include <stdint.h>

#if defined(_WIN32)
#define HWFAULT_API __declspec(dllexport)
#else
#define HWFAULT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { HWFAULT_FLOAT32 = 0, HWFAULT_FLOAT64 = 1, HWFAULT_FLOAT16 = 2, HWFAULT_BFLOAT16 = 3 };

/* How the integers of signed formats are stored; the faults act on what is stored. */
enum { HWFAULT_TWOS_COMPLEMENT = 0, HWFAULT_OFFSET_BINARY = 1, HWFAULT_SIGN_MAGNITUDE = 2 };

/* How values stand for codes. Word w of a sample has scale[(w / scale_inner) % n_scale]; the zero point, which need not be
 * an integer, likewise. Integers that a 16 bit type rounded to beyond the word's range are the range's ends. */
typedef struct {
  const double* scale;
  int64_t n_scale, scale_inner;
  const double* zero_point;
  int64_t n_zero_point, zero_point_inner;
  int32_t bit_width, is_signed, representation;
} hwfault_format;

/* Which faults: `batch` samples of `words` words each, sample[i] (taken mod 2^32) the number of the i-th. */
typedef struct {
  uint64_t seed;
  const int64_t* sample;
  int64_t batch, words;
  const int64_t* program;
  int64_t program_length;
} hwfault_draw;

HWFAULT_API int64_t hwfault_abi_version(void);
HWFAULT_API const char* hwfault_error_text(int64_t code);
HWFAULT_API void hwfault_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4]);

/* The hits of one plane (a bit, or 63 for words) of one sample in stream order: writes at most `capacity` of them and
 * returns how many there are. `table` is a count table as in a fault program, `table_length` numbers long. */
HWFAULT_API int64_t hwfault_hits(uint64_t seed, uint32_t site, uint32_t sample, int64_t words, int32_t plane,
                                 const int64_t* table, int64_t table_length, int64_t capacity, int64_t* word,
                                 uint32_t* aux);

/* out = x with the faults; out may be x unless the program has late bits. What is not finite stays as it is: no_numbers
 * (NULL, or written only on success) says how many such words would have been changed. Returns the number of words
 * changed. */
HWFAULT_API int64_t hwfault_inject(int32_t dtype, const void* x, void* out, const hwfault_draw* draw,
                                   const hwfault_format* format, int32_t threads, int64_t* no_numbers);

/* out = gradient with zeros at faulty words (code after all processes differs from the code before). x, the values
 * before injection, may be NULL unless which words are faulty depends on the stored codes; then words that hold no number
 * are taken for numbers. */
HWFAULT_API int64_t hwfault_zero_faulty(int32_t dtype, const void* gradient, void* out, const void* x,
                                        const hwfault_draw* draw, const hwfault_format* format, int32_t threads);

/* Faulty words as element * words + word, ascending, with their codes before and after (both may be NULL). Writes at
 * most `capacity` and returns how many there are. */
HWFAULT_API int64_t hwfault_faulty_words(int32_t dtype, const void* x, const hwfault_draw* draw,
                                         const hwfault_format* format, int64_t capacity, int64_t* position,
                                         uint32_t* before, uint32_t* after);

/* The faults on codes, in place; returns the number of words changed. */
HWFAULT_API int64_t hwfault_inject_codes(uint32_t* codes, const hwfault_draw* draw, int32_t bit_width);

/* A site's fault program, copied, parsed and checked once, and its words' format but for scale and zero point. Never changed
 * again: any number of threads may use one at a time. */
typedef struct hwfault_site hwfault_site;

/* How the values of a site lie in memory, and the numbers of the types: `batch` samples of `words` words each; how many
 * scales and zero points there are, and how many words share one before the next one comes (as in hwfault_format). The
 * samples lie one behind the other where `run` is 0; else they take turns, `run` words of each, until all are there. */
typedef struct {
  int64_t batch, words;
  int64_t n_scale, scale_inner;
  int64_t n_zero_point, zero_point_inner;
  int32_t dtype, scale_dtype, zero_point_dtype;
  int64_t run;
} hwfault_shape;

/* *site = a new site, to be freed when nobody uses it any more. Returns 0. */
HWFAULT_API int64_t hwfault_site_new(const int64_t* program, int64_t length, int32_t bit_width, int32_t is_signed,
                                     int32_t representation, hwfault_site** site);
HWFAULT_API void hwfault_site_free(hwfault_site* site);

/* hwfault_inject for a site: sample[i] is the number of the i-th of the tensor's samples, and scale and zero point are
 * read where they lie. Returns the number of words changed. */
HWFAULT_API int64_t hwfault_site_strike(const hwfault_site* site, const hwfault_shape* shape, const void* x, void* out,
                                        const void* scale, const void* zero_point, uint64_t seed, const int64_t* sample,
                                        int32_t threads, int64_t* no_numbers);

/* Where the values of a tensor lie in memory if not in C order: `axes` axes with as many indices as `lengths` say, of which
 * neighbours lie `strides` values apart. All lie within as many values as there are. */
typedef struct {
  int32_t axes;
  const int64_t *lengths, *strides;
} hwfault_strides;

/* The same where x and out lie so; words and samples are numbered in C order nevertheless. */
HWFAULT_API int64_t hwfault_site_strike_strided(const hwfault_site* site, const hwfault_shape* shape,
                                                const hwfault_strides* strides, const void* x, void* out,
                                                const void* scale, const void* zero_point, uint64_t seed,
                                                const int64_t* sample, int32_t threads, int64_t* no_numbers);

/* hwfault_zero_faulty for a site; scale and zero point are read only where x is given. Returns the number of faulty
 * words. */
HWFAULT_API int64_t hwfault_site_zero(const hwfault_site* site, const hwfault_shape* shape, const void* gradient,
                                      void* out, const void* x, const void* scale, const void* zero_point,
                                      uint64_t seed, const int64_t* sample, int32_t threads);

/* Permanent faults: code' = (code & and_mask) ^ xor_mask at the rows' words (strictly ascending) of every sample.
 * Intermittent ones, if `threshold` is below 2^32: a cell shows its fault where its activity, drawn for (seed, site,
 * period[i] of the i-th sample, word, bit), lies below the threshold. `period` may be NULL where it is 2^32.
 * Faults of single samples, if `threshold` is 2^33: a row's word is 2^31 n + the word within a sample of fewer than 2^31
 * words, and the row strikes samples with period[i] mod 2^32 = n alone; nothing is drawn. */
typedef struct {
  int64_t batch, words;
  const int64_t* word;
  const uint32_t *and_mask, *xor_mask;
  int64_t rows;
  int64_t threshold;
  uint64_t seed;
  uint32_t site;
  const int64_t* period;
} hwfault_map;

/* out = x with the map's faults; out may be x; no_numbers as for hwfault_inject. Returns the number of words changed. */
HWFAULT_API int64_t hwfault_apply_map(int32_t dtype, const void* x, void* out, const hwfault_map* map,
                                      const hwfault_format* format, int32_t threads, int64_t* no_numbers);

/* out = gradient with zeros at the words that the map changes. x, the values before, may be NULL if every and_mask
 * keeps all bits: then every row's word is changed whatever is stored. */
HWFAULT_API int64_t hwfault_zero_map(int32_t dtype, const void* gradient, void* out, const void* x,
                                     const hwfault_map* map, const hwfault_format* format, int32_t threads);

/* A range of integers, low to high: what lies below becomes `below`, what lies above `above`. All four are integers of the
 * words, and both replacements lie within the range. Nothing is drawn, and no word is a fault of its own. */
typedef struct {
  int64_t batch, words;
  int64_t low, high;
  int64_t below, above;
} hwfault_range;

/* out = x with its integers within a range; out may be x. What is not finite stays. Returns the number of words changed. */
HWFAULT_API int64_t hwfault_clip(int32_t dtype, const void* x, void* out, const hwfault_range* range,
                                 const hwfault_format* format, int32_t threads);

/* out = gradient with zeros at the words that hwfault_clip changes in x. */
HWFAULT_API int64_t hwfault_zero_clipped(int32_t dtype, const void* gradient, void* out, const void* x,
                                         const hwfault_range* range, const hwfault_format* format, int32_t threads);

/* What protects the words of a memory, and what reads of a detected error become. */
enum { HWFAULT_PARITY = 1, HWFAULT_SECDED = 2, HWFAULT_TMR = 3 };
enum { HWFAULT_ZERO = 0, HWFAULT_DUE = 1 };

/* A memory of words of `data_bits` (1 to 64) with check bits. Without a table (rows = 0) the code words lie one behind the
 * other, each in a slot of `slot` bits (bit_width to 64). Row i of a table holds the memory word number[i] (ascending, a
 * number may repeat); its data bit d is the cell cells[i * data_bits + d] = 32 * word + bit of the sample, or -1. */
typedef struct {
  int32_t kind, data_bits, slot, on_detected;
  const int64_t* number;
  const int64_t* cells;
  int64_t rows;
} hwfault_protection;

/* out = x with what the decoder lets through; out may be x. The draw's program (for words of a sub-word's bits) strikes
 * first, then the map, whose words are sub-words, and whose batch, words and seed are not read: they are the draw's. A table
 * and a program together are an error. counts[3], written only on success, are the memory words read as corrected, detected
 * and miscorrected. Returns the number of words changed. */
HWFAULT_API int64_t hwfault_protected(int32_t dtype, const void* x, void* out, const hwfault_draw* draw,
                                      const hwfault_map* map, const hwfault_format* format,
                                      const hwfault_protection* protection, int64_t counts[3], int32_t threads);

/* out = gradient with zeros at the words that hwfault_protected changes in x. */
HWFAULT_API int64_t hwfault_zero_protected(int32_t dtype, const void* gradient, void* out, const void* x,
                                           const hwfault_draw* draw, const hwfault_map* map,
                                           const hwfault_format* format, const hwfault_protection* protection,
                                           int32_t threads);

/* A convolution or linear layer on integers: result (element b, channel n, position m) is the sum of `products`
 * = depth * kernel products, product k being input channel and kernel index number k of the group in C order.
 * `axes` has six numbers for each of the `rank` spatial axes: the lengths of input, output and kernel, then stride,
 * padding in front and dilation. Channels are axis 1 of x and acc, or the last axis (`channels_last`: a linear layer,
 * of rank 1 and kernel 1). The weights are (channels, depth, kernel). */
typedef struct {
  int64_t batch, channels, groups, depth;
  const int64_t* axes;
  int32_t rank, channels_last;
} hwfault_layer;

/* How an array of processing elements adds a layer up (export/SPEC.md, ArrayFaults). `order` names every product once
 * (NULL: 0, 1, 2, ...), `events` has eight numbers each. */
typedef struct {
  const int64_t* order;
  int64_t step, pass_steps;
  const int64_t* events;
  int64_t n_events;
  int32_t width, saturate, recompute;
} hwfault_array;

/* out = the accumulators acc (integers) as the array leaves them; out may be acc. x and w are the layer's integers;
 * both are read only where channels are added up anew. Returns 0. */
HWFAULT_API int64_t hwfault_accumulate(int32_t dtype, const void* acc, const float* x, const float* w, void* out,
                                       const hwfault_layer* layer, const hwfault_array* array, int32_t threads);

/* A fake quantizer of float32 values: integers from `least` to `most`, round(x / scale + zero_point), ties to even, as
 * their values (integer - zero_point) * scale. The values lie in C order as repeats * outer * shared * inner of them; the
 * one at (r, o, s, i) has scale number o * inner + i, and that of zero points (1: one for all). `passes` says that the
 * gradient passes also where an integer was clamped; elsewhere it is 0 there. `rectifies` says that values below 0 are
 * taken for 0 (and pass no gradient). */
typedef struct {
  const float* scale;
  const float* zero_point;
  int64_t repeats, outer, shared, inner;
  int64_t zero_points;
  float least, most;
  int32_t passes, rectifies;
} hwfault_quantizer;

/* out = x quantized; out may be x. Returns 0. */
HWFAULT_API int64_t hwfault_quantize(const float* x, float* out, const hwfault_quantizer* quantizer, int32_t threads);

/* The gradients of x and of each scale from that of the quantized values; either may be NULL, and none may be the
 * gradient given. Sums are the same for any number of threads. Returns 0. */
HWFAULT_API int64_t hwfault_quantize_gradient(const float* x, const float* gradient, float* x_gradient,
                                              double* scale_gradient, const hwfault_quantizer* quantizer,
                                              int32_t threads);

/* Which faults of a site strike what a quantizer gives: `batch` samples, of which the i-th has number sample[i]. */
typedef struct {
  const hwfault_site* site;
  uint64_t seed;
  const int64_t* sample;
  int64_t batch;
} hwfault_strike;

/* hwfault_quantize and hwfault_site_strike in one pass, for values that have no scale each; out may be x. The format is the
 * quantizer's: the site's own words. Returns the number of words changed; no_numbers as in hwfault_inject. */
HWFAULT_API int64_t hwfault_quantize_struck(const float* x, float* out, const hwfault_quantizer* quantizer,
                                            const hwfault_strike* strike, int32_t threads, int64_t* no_numbers);

/* hwfault_quantize_gradient of values that were struck: no gradient passes at faulty words. `no_numbers` says that some
 * words that were struck held no number, and so were not changed. Both gradients have to be wanted or x_gradient alone. */
HWFAULT_API int64_t hwfault_quantize_struck_gradient(const float* x, const float* gradient, float* x_gradient,
                                                     double* scale_gradient, const hwfault_quantizer* quantizer,
                                                     const hwfault_strike* strike, int32_t no_numbers,
                                                     int32_t threads);

/* largest[r] = the largest magnitude of row r of the values, NaN where one of them is. Returns 0. */
HWFAULT_API int64_t hwfault_largest(const float* x, int64_t rows, int64_t length, float* largest);

/* Adds to the gradients of the values that have their row's largest magnitude (the first of them if `first_only`) equal
 * shares of its gradient. Rows whose largest magnitude is NaN are left alone. Returns 0. */
HWFAULT_API int64_t hwfault_largest_gradient(const float* x, int64_t rows, int64_t length, const float* largest,
                                             const float* gradient, int32_t first_only, float* x_gradient);

/* A quantized network as integer layers and what lies between them, parsed and checked once and never changed again. Any
 * number of threads may use one at a time. export/SPEC.md, "Networks", tells how `plan` describes one. */
typedef struct hwfault_network hwfault_network;

/* *network = a new network, to be freed when nobody uses it any more; all that it is made from is copied. Returns 0. */
HWFAULT_API int64_t hwfault_network_new(const int64_t* plan, int64_t length, const float* constants,
                                        int64_t n_constants, const int16_t* weights, int64_t n_weights,
                                        hwfault_network** network);
HWFAULT_API void hwfault_network_free(hwfault_network* network);

/* The bytes that hwfault_golden_new takes for each image. */
HWFAULT_API int64_t hwfault_network_bytes(const hwfault_network* network);

/* A network's run without faults on some images, and what is kept of it; the network has to live as long as this. */
typedef struct hwfault_golden hwfault_golden;

/* *golden = a run on (images, inputs) values, to be freed. Returns 0. */
HWFAULT_API int64_t hwfault_golden_new(const hwfault_network* network, const float* x, int64_t images,
                                       hwfault_golden** golden);
HWFAULT_API void hwfault_golden_free(hwfault_golden* golden);

/* out = the (images, outputs) values. Returns 0. */
HWFAULT_API int64_t hwfault_golden_outputs(const hwfault_golden* golden, float* out);

/* Flipped weights of the layer that is node number `node`: word[i], in the order (channels, depth, taps), is larger by
 * change[i]. Flips of a word one behind the other, and words in ascending order, are the cheapest. */
typedef struct {
  int64_t node;
  const int64_t* word;
  const int32_t* change;
  int64_t count;
} hwfault_flips;

/* Flipped bits of what a step of node number `node` gives, a quantizer that is its step number `step`: bit[i] (0: the
 * lowest) of the code of element word[i] of the node's output. The format says which codes the values stand for. */
typedef struct {
  int64_t node, step;
  const hwfault_format* format;
  const int64_t* word;
  const int32_t* bit;
  int64_t count;
} hwfault_value_flips;

/* Addends of a layer, node number `node`, as flipped biases make them: addend[i] in place of that of channel[i] in its
 * first step, the affine one. */
typedef struct {
  int64_t node;
  const int64_t* channel;
  const float* addend;
  int64_t count;
} hwfault_addends;

/* Room for `capacity` runs whose outputs differ from the golden ones: the flip's index, the image, the outputs. */
typedef struct {
  int64_t capacity;
  int64_t *flip, *image;
  float* outputs;
} hwfault_survivors;

/* Every flip, one at a time, in every image. top1 (flips, images / 8 rounded up) has the bit 128 >> image % 8 set where
 * the first largest output is another one than the golden run's; died (flips, nodes) counts the images in which nothing
 * differed from the golden run any more behind the node. Both may be NULL, and so may survivors, of which as many are
 * written as there is room for. Returns how many runs have outputs that differ. */
HWFAULT_API int64_t hwfault_census(const hwfault_golden* golden, const hwfault_flips* flips, uint8_t* top1,
                                   uint32_t* died, const hwfault_survivors* survivors);

/* Flip i in image[i]: its outputs, and in died[i] the node behind which nothing differed any more, or -1 where the
 * outputs differ. Both may be NULL. Returns how many differ. */
HWFAULT_API int64_t hwfault_run_flips(const hwfault_golden* golden, const hwfault_flips* flips, const int64_t* image,
                                      int64_t* died, float* outputs);

/* The same for flipped values. */
HWFAULT_API int64_t hwfault_value_census(const hwfault_golden* golden, const hwfault_value_flips* flips, uint8_t* top1,
                                         uint32_t* died, const hwfault_survivors* survivors);
HWFAULT_API int64_t hwfault_run_value_flips(const hwfault_golden* golden, const hwfault_value_flips* flips,
                                            const int64_t* image, int64_t* died, float* outputs);

/* The same for changed addends. */
HWFAULT_API int64_t hwfault_addend_census(const hwfault_golden* golden, const hwfault_addends* addends, uint8_t* top1,
                                          uint32_t* died, const hwfault_survivors* survivors);
HWFAULT_API int64_t hwfault_run_addends(const hwfault_golden* golden, const hwfault_addends* addends,
                                        const int64_t* image, int64_t* died, float* outputs);

#ifdef __cplusplus
}
#endif
#endif
