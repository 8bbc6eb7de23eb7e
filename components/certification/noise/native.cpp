// The noise of reference.py, compiled: the same integers.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

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

// The attributes of DiscreteNormal.
struct Table {
    const uint32_t *tops, *lows;
    const uint32_t (*guide)[2];
    int32_t resolution, reach;
};

static const uint32_t LOWER_WORDS = 1u << 31, MANY = 1u << 31;

static inline uint32_t as_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

// See discrete_normal.cells_of.
static inline uint32_t cell_of(uint32_t word, int32_t resolution) {
    const uint32_t upper = word >> 31, distance = word ^ (0u - upper);
    const uint32_t cell = as_bits(float(int32_t(distance)) + 1.0f) >> (23 - resolution);
    return cell - (127u << resolution) + (upper << (5 + resolution));
}

// The lower word of one value, whose upper word alone does not say in which bin it lies: one in a million.
static uint32_t lower_word(int64_t value, int64_t quads, Words counter, uint32_t key0, uint32_t key1) {
    const Words words = philox({uint32_t(value % quads), counter.b, counter.c, counter.d | LOWER_WORDS}, key0, key1);
    const uint32_t four[] = {words.a, words.b, words.c, words.d};
    return four[value / quads];
}

// out[s] = (image + noise of sample start + s) * step for s in [0, samples), `values` floats each; lost[s]: whether.
extern "C" void noisy_copies(float *out, uint8_t *lost, const int32_t *image, float step, const Table *table,
                             uint64_t seed, uint32_t index, uint64_t start, int64_t samples, int64_t values) {
    const uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
    const int64_t quads = (values + 3) / 4;
    const uint32_t *const tops = table->tops, *const lows = table->lows;
    const uint32_t (*const guide)[2] = table->guide;
    const int32_t resolution = table->resolution, bins = 2 * table->reach + 1;
    std::vector<uint32_t> words(4 * quads), cells(4 * quads);
    std::vector<int32_t> lowest(image, image + values);
    for (int32_t &value : lowest) value -= table->reach;
    uint32_t *const word = words.data(), *const cell = cells.data();
    const int32_t *const least = lowest.data();
    for (int64_t s = 0; s < samples; ++s) {
        const uint64_t sample = start + s;
        const Words counter = {0, uint32_t(sample), index, uint32_t(sample >> 32)};
#pragma GCC ivdep
        for (int64_t j = 0; j < quads; ++j) {
            const Words four = philox({uint32_t(j), counter.b, counter.c, counter.d}, key0, key1);
            word[j] = four.a;
            word[j + quads] = four.b;
            word[j + 2 * quads] = four.c;
            word[j + 3 * quads] = four.d;
        }
        for (int64_t i = 0; i < values; ++i) cell[i] = cell_of(word[i], resolution);
        float *const row = out + s * values;
        uint32_t open = 0;  // whether an upper word is that of an edge, or its cell has several
#pragma GCC ivdep
        for (int64_t i = 0; i < values; ++i) {
            const uint32_t below = guide[cell[i]][0], top = guide[cell[i]][1];
            open |= (top == word[i] ? MANY : 0u) | below;
            row[i] = float(least[i] + int32_t(below + (top < word[i]))) * step;
        }
        lost[s] = 0;
        if (open < MANY) continue;
        for (int64_t i = 0; i < values; ++i) {
            int32_t bin = int32_t(std::lower_bound(tops, tops + bins, word[i]) - tops);
            if (tops[bin] == word[i]) {
                const uint32_t low = lower_word(i, quads, counter, key0, key1);
                while (bin < bins && tops[bin] == word[i] && lows[bin] <= low) ++bin;
                lost[s] |= bin == bins;
            }
            row[i] = float(least[i] + bin) * step;
        }
    }
}
