// The noise of reference.py, compiled: the same operations on the same bits. Build without contraction of a * b + c
// (-ffp-contract=off), or the rounding differs.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

static inline float as_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline uint32_t as_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

struct Words { uint32_t a, b, c, d; };

static inline Words philox(Words counter, uint32_t key0, uint32_t key1) {
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const uint64_t p = uint64_t(counter.a) * 0xD2511F53u, q = uint64_t(counter.c) * 0xCD9E8D57u;
        counter = {uint32_t(q >> 32) ^ counter.b ^ key0, uint32_t(q), uint32_t(p >> 32) ^ counter.d ^ key1, uint32_t(p)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// -2 log(u) at u = (word + 1/2) / 2^32: log(2^e (1 + m)) with 1 + m in [sqrt(1/2), sqrt(2)).
static inline float minus_two_log(uint32_t word) {
    const float u = (float(word) + 0.5f) * 0x1p-32f;
    const uint32_t bits = as_bits(u) - 0x3F3504F3u;
    const float e = float(int32_t(bits) >> 23);
    const float m = as_float((bits & 0x7FFFFFu) + 0x3F3504F3u) - 1.0f;
    float y = 7.0376836292e-2f;
    y = y * m - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    const float square = m * m;
    y = y * m * square - 0.5f * square;
    return -2.0f * ((m + y) + e * 0.693147180559945f);
}

// Two normals by Box-Muller; the angle's upper two bits are the quadrant, the others the angle within it.
static inline void normal_pair(uint32_t for_radius, uint32_t for_angle, float &first, float &second) {
    const float radius = std::sqrt(minus_two_log(for_radius));
    const float angle = float(int32_t(for_angle << 2)) * (1.5707963267948966f * 0x1p-32f);
    const float square = angle * angle;
    const float sine = angle + angle * square * (-1.6666654611e-1f + square * (8.3321608736e-3f + square * -1.9515295891e-4f));
    const float cosine = 1.0f - 0.5f * square
        + square * square * (4.166664568298827e-2f + square * (-1.388731625493765e-3f + square * 2.443315711809948e-5f));
    const uint32_t quadrant = for_angle >> 30, swapped = 0u - (quadrant & 1u);
    const uint32_t s = as_bits(sine), c = as_bits(cosine);
    first = radius * as_float(((c & ~swapped) | (s & swapped)) ^ (((quadrant + 1u) & 2u) << 30));
    second = radius * as_float(((s & ~swapped) | (c & swapped)) ^ ((quadrant & 2u) << 30));
}

// out[s] = image + sigma * noise of sample start + s, for s in [0, samples); `values` floats each.
extern "C" void noisy_copies(float *out, const float *image, float sigma, uint64_t seed, uint32_t index, uint64_t start,
                             int64_t samples, int64_t values) {
    const uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
    const int64_t quads = (values + 3) / 4;
    std::vector<float> buffer(4 * quads);
    float *const normals = buffer.data();
    for (int64_t s = 0; s < samples; ++s) {
        const uint64_t sample = start + s;
        const uint32_t low = uint32_t(sample), high = uint32_t(sample >> 32);
#pragma GCC ivdep
        for (int64_t j = 0; j < quads; ++j) {
            const Words words = philox({uint32_t(j), low, index, high}, key0, key1);
            float a, b, c, d;
            normal_pair(words.a, words.b, a, b);
            normal_pair(words.c, words.d, c, d);
            normals[j] = a;
            normals[j + quads] = b;
            normals[j + 2 * quads] = c;
            normals[j + 3 * quads] = d;
        }
        float *const row = out + s * values;
        for (int64_t i = 0; i < values; ++i) row[i] = image[i] + sigma * normals[i];
    }
}
