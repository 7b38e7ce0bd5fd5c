/* One forward pass of a small model of the Llama family on one core, for steps of few tokens.
 *
 * A library call per operation costs more than the arithmetic of a small model, so this is one call per step. It rounds
 * to bfloat16 where the torch tier does: what goes into a matrix product and what comes out of it. Norms, rotation,
 * attention, K, V and the residual are float32.
 *
 * Weights are packed [out / LANES][in / 2][LANES][2]: a vector holds two inputs of LANES outputs, which is what the
 * bfloat16 dot product of AVX-512 takes; elsewhere the compiler vectorizes the same loop over lanes.
 */
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

typedef struct {
    const float *input_norm, *post_norm, *q_norm, *k_norm; /* the latter two may be null */
    const bf16 *qkv, *o, *gate_up, *down;
    const float *qkv_bias, *o_bias, *gate_up_bias, *down_bias; /* may be null */
    float *kv;                                                 /* [slots][2 kv_heads][dim], values behind keys */
    int64_t window;                                            /* 0: none */
} Layer;

typedef struct {
    int64_t hidden, heads, kv_heads, dim, inner, vocab, layers, page_size;
    const bf16 *embedding; /* [vocab][hidden] */
    const float *norm;
    const bf16 *head;
    const float *cos_sin; /* [positions][dim], cosines first */
    const Layer *layer;
    float eps, scale;
} Model;

typedef struct {
    int64_t rows, wanted, table_width;
    const int64_t *ids, *positions, *slots, *wanted_at;
    const int32_t *sequence, *tables; /* of each row; [sequences][table_width] */
} Step;

/* Room that the caller gives: rows x the width in the comment; `scores` is heads / kv_heads x the longest context. */
typedef struct {
    float *residual;     /* hidden */
    float *query, *seen; /* heads x dim */
    float *scores;
    bf16 *in;  /* max(hidden, heads x dim, inner) */
    bf16 *out; /* max((heads + 2 kv_heads) x dim, 2 inner, hidden) */
} Room;

INLINE float widened(bf16 x) {
    union { uint32_t bits; float value; } both = {(uint32_t)x << 16};
    return both.value;
}

INLINE bf16 rounded(float x) {
    union { float value; uint32_t bits; } both = {x};
    uint32_t nearest = (both.bits + 0x7fff + ((both.bits >> 16) & 1)) >> 16;
    return (bf16)((both.bits & 0x7fffffff) > 0x7f800000 ? (both.bits >> 16) | 0x40 : nearest);
}

/* e^x to a few units in the last place; NaN stays NaN. Written out because libm's is a call per number. */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* adding 1.5 x 2^23 rounds to a whole number in the low bits */
    union { float value; int32_t bits; } whole = {shifted};
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float value; } power = {(int32_t)((uint32_t)(whole.bits - 0x4b400000 + 127) << 23)};
    return p * power.value;
}

/* `blocks` x LANES outputs of `rows` inputs; both are constants where it is called, so the sums stay in registers. */
INLINE void tile(const bf16 *w, const float *bias, const bf16 *x, bf16 *y, int64_t in, int64_t out,
                 const int blocks, const int rows) {
    const int64_t block = in * LANES;
    float sums[4][8][LANES];
#ifdef __AVX512BF16__
    __m512 acc[4][8];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) acc[b][r] = _mm512_setzero_ps();
    for (int64_t k = 0; k < in; k += 2) {
        __m512bh weights[4];
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            weights[b] = (__m512bh)_mm512_loadu_si512(w + b * block + k * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + r * in + k, 4);
            const __m512bh inputs = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int b = 0; b < blocks; b++) acc[b][r] = _mm512_dpbf16_ps(acc[b][r], weights[b], inputs);
        }
    }
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) _mm512_storeu_ps(sums[b][r], acc[b][r]);
#else
    for (int b = 0; b < blocks; b++)
        for (int r = 0; r < rows; r++) {
            float acc[LANES] = {0};
            for (int64_t k = 0; k < in; k += 2) {
                const float first = widened(x[r * in + k]), second = widened(x[r * in + k + 1]);
                const bf16 *weights = w + b * block + k * LANES;
                for (int lane = 0; lane < LANES; lane++)
                    acc[lane] += first * widened(weights[2 * lane]) + second * widened(weights[2 * lane + 1]);
            }
            memcpy(sums[b][r], acc, sizeof acc);
        }
#endif
    for (int b = 0; b < blocks; b++)
        for (int r = 0; r < rows; r++)
            for (int lane = 0; lane < LANES; lane++)
                y[r * out + b * LANES + lane] = rounded(sums[b][r][lane] + (bias ? bias[b * LANES + lane] : 0.0f));
}

/* A group of outputs for all rows: its weights are read from memory once and then from the cache. */
#define GROUP(blocks)                                                                                            \
    static void group##blocks(const bf16 *w, const float *bias, const bf16 *x, bf16 *y, int64_t rows, int64_t in, \
                              int64_t out) {                                                                      \
        int64_t r = 0;                                                                                            \
        for (; r + 8 <= rows && blocks <= 2; r += 8) tile(w, bias, x + r * in, y + r * out, in, out, blocks, 8);  \
        for (; r + 4 <= rows; r += 4) tile(w, bias, x + r * in, y + r * out, in, out, blocks, 4);                 \
        for (; r + 2 <= rows; r += 2) tile(w, bias, x + r * in, y + r * out, in, out, blocks, 2);                 \
        for (; r < rows; r++) tile(w, bias, x + r * in, y + r * out, in, out, blocks, 1);                         \
    }
GROUP(1)
GROUP(2)
GROUP(4)

/* y [rows, out] = x [rows, in] w^T + bias. `in` is even, `out` a multiple of LANES. */
void product(const bf16 *w, const float *bias, const bf16 *x, bf16 *y, int64_t rows, int64_t in, int64_t out) {
    const int64_t most = rows >= 8 ? 2 : 4;
    int64_t blocks = 0;
    for (int64_t at = 0; at < out; at += blocks * LANES) {
        const int64_t left = (out - at) / LANES;
        const bf16 *from = w + at * in;
        const float *plus = bias ? bias + at : 0;
        blocks = left >= most ? most : left >= 2 ? 2 : 1;
        if (blocks == 4) group4(from, plus, x, y + at, rows, in, out);
        else if (blocks == 2) group2(from, plus, x, y + at, rows, in, out);
        else group1(from, plus, x, y + at, rows, in, out);
    }
}

INLINE float inverse_rms(const float *x, int64_t n, float eps) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
    return 1.0f / __builtin_sqrtf(squares / (float)n + eps);
}

/* residual += added, where there is something to add; normed = its norm */
static void add_norm(float *residual, const bf16 *added, const float *weight, bf16 *normed, int64_t rows, int64_t n,
                     float eps) {
    for (int64_t r = 0; r < rows; r++, residual += n, normed += n) {
        if (added)
            for (int64_t i = 0; i < n; i++) residual[i] += widened(added[r * n + i]);
        const float scale = inverse_rms(residual, n, eps);
        for (int64_t i = 0; i < n; i++) normed[i] = rounded(residual[i] * scale * weight[i]);
    }
}

/* One head, from the projection to where it is kept. `norm` may be null. */
INLINE void rotate(const bf16 *from, const float *norm, float eps, const float *cos_sin, int64_t dim, float *to) {
    const int64_t half = dim / 2;
    float head[dim];
    for (int64_t i = 0; i < dim; i++) head[i] = widened(from[i]);
    if (norm) {
        const float scale = inverse_rms(head, dim, eps);
        for (int64_t i = 0; i < dim; i++) head[i] *= scale * norm[i];
    }
    for (int64_t i = 0; i < half; i++) {
        to[i] = head[i] * cos_sin[i] - head[half + i] * cos_sin[half + i];
        to[half + i] = head[half + i] * cos_sin[i] + head[i] * cos_sin[half + i];
    }
}

static void rotate_and_keep(const Model *m, const Layer *l, const Step *s, const bf16 *projected, float *query) {
    const int64_t dim = m->dim, heads = m->heads, kv_heads = m->kv_heads;
    for (int64_t r = 0; r < s->rows; r++) {
        const float *cos_sin = m->cos_sin + s->positions[r] * dim;
        const bf16 *q = projected + r * (heads + 2 * kv_heads) * dim, *k = q + heads * dim, *v = k + kv_heads * dim;
        float *keys = l->kv + s->slots[r] * 2 * kv_heads * dim, *values = keys + kv_heads * dim;
        for (int64_t h = 0; h < heads; h++)
            rotate(q + h * dim, l->q_norm, m->eps, cos_sin, dim, query + (r * heads + h) * dim);
        for (int64_t h = 0; h < kv_heads; h++) rotate(k + h * dim, l->k_norm, m->eps, cos_sin, dim, keys + h * dim);
        for (int64_t i = 0; i < kv_heads * dim; i++) values[i] = widened(v[i]);
    }
}

INLINE void softmax(float *x, int64_t n) {
    float largest = x[0], total = 0;
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += x[i] = exponential(x[i] - largest);
    const float share = 1.0f / total;
    for (int64_t i = 0; i < n; i++) x[i] *= share;
}

/* One row's query heads of one key head: they share every key and value that is read. `dim` is a constant where it is
 * called, which is worth a third. */
INLINE void attend(const Model *m, const Layer *l, const Step *s, int64_t row, int64_t kv_head, const float *query,
                   float *scores, float *seen, const int64_t dim) {
    const int64_t group = m->heads / m->kv_heads, stride = 2 * m->kv_heads * dim, size = m->page_size;
    const int64_t end = s->positions[row] + 1, begin = l->window && end > l->window ? end - l->window : 0;
    const int32_t *table = s->tables + s->sequence[row] * s->table_width;
    const float *keys = l->kv + kv_head * dim, *values = keys + m->kv_heads * dim;
    for (int64_t t = begin, last; t < end; t = last) {
        last = (t / size + 1) * size < end ? (t / size + 1) * size : end;
        const float *key = keys + ((int64_t)table[t / size] * size + t % size) * stride;
        for (int64_t u = t; u < last; u++, key += stride)
            for (int64_t g = 0; g < group; g++) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < dim; i++) sum += query[g * dim + i] * key[i];
                scores[g * end + u] = sum * m->scale;
            }
    }
    for (int64_t g = 0; g < group; g++) softmax(scores + g * end + begin, end - begin);
    memset(seen, 0, group * dim * sizeof *seen);
    for (int64_t t = begin, last; t < end; t = last) {
        last = (t / size + 1) * size < end ? (t / size + 1) * size : end;
        const float *value = values + ((int64_t)table[t / size] * size + t % size) * stride;
        for (int64_t u = t; u < last; u++, value += stride)
            for (int64_t g = 0; g < group; g++) {
                const float share = scores[g * end + u];
                for (int64_t i = 0; i < dim; i++) seen[g * dim + i] += share * value[i];
            }
    }
}

static void attention(const Model *m, const Layer *l, const Step *s, Room *room) {
    const int64_t width = m->heads * m->dim, shared = width / m->kv_heads;
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t h = 0; h < m->kv_heads; h++) {
            const float *query = room->query + r * width + h * shared;
            float *seen = room->seen + r * width + h * shared;
            if (m->dim == 64) attend(m, l, s, r, h, query, room->scores, seen, 64);
            else if (m->dim == 128) attend(m, l, s, r, h, query, room->scores, seen, 128);
            else attend(m, l, s, r, h, query, room->scores, seen, m->dim);
        }
    for (int64_t i = 0; i < s->rows * width; i++) room->in[i] = rounded(room->seen[i]);
}

static void silu_mul(const bf16 *both, bf16 *to, int64_t rows, int64_t inner) {
    for (int64_t r = 0; r < rows; r++, both += 2 * inner, to += inner)
        for (int64_t i = 0; i < inner; i++) {
            const float gate = widened(both[i]);
            to[i] = rounded(widened(rounded(gate / (1.0f + exponential(-gate)))) * widened(both[inner + i]));
        }
}

/* What follows the last attention concerns each row alone: only those whose logits are wanted go on. */
static void keep_wanted(const Model *m, const Step *s, Room *room) {
    const int64_t width = m->heads * m->dim;
    for (int64_t i = 0; i < s->wanted; i++) {
        const int64_t from = s->wanted_at[i];
        memmove(room->residual + i * m->hidden, room->residual + from * m->hidden, m->hidden * sizeof(float));
        memmove(room->in + i * width, room->in + from * width, width * sizeof(bf16));
    }
}

/* `logits` [wanted, vocab]. `wanted_at` ascends. */
void forward(const Model *m, const Step *s, Room *room, bf16 *logits) {
    const int64_t hidden = m->hidden, width = m->heads * m->dim, all = width + 2 * m->kv_heads * m->dim;
    int64_t rows = s->rows;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < hidden; i++)
            room->residual[r * hidden + i] = widened(m->embedding[s->ids[r] * hidden + i]);
    for (int64_t i = 0; i < m->layers; i++) {
        const Layer *l = m->layer + i;
        add_norm(room->residual, i ? room->out : 0, l->input_norm, room->in, rows, hidden, m->eps);
        product(l->qkv, l->qkv_bias, room->in, room->out, rows, hidden, all);
        rotate_and_keep(m, l, s, room->out, room->query);
        if (i == m->layers - 1 && !s->wanted) return;
        attention(m, l, s, room);
        if (i == m->layers - 1 && s->wanted < rows) {
            keep_wanted(m, s, room);
            rows = s->wanted;
        }
        product(l->o, l->o_bias, room->in, room->out, rows, width, hidden);
        add_norm(room->residual, room->out, l->post_norm, room->in, rows, hidden, m->eps);
        product(l->gate_up, l->gate_up_bias, room->in, room->out, rows, hidden, 2 * m->inner);
        silu_mul(room->out, room->in, rows, m->inner);
        product(l->down, l->down_bias, room->in, room->out, rows, m->inner, hidden);
    }
    add_norm(room->residual, room->out, m->norm, room->in, rows, hidden, m->eps);
    product(m->head, 0, room->in, logits, rows, hidden, m->vocab);
}
