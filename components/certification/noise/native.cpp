// The noise of reference.py, compiled: the same integers.
#include <algorithm>
#include <cstdint>
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
    int32_t shift, reach;
};

static const uint32_t LOWER_WORDS = 1u << 31, MANY = 1u << 31;

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
    const int32_t shift = table->shift, reach = table->reach;
    std::vector<uint32_t> buffer(4 * quads);
    std::vector<int32_t> bins(4 * quads);
    uint32_t *const upper = buffer.data();
    int32_t *const bin = bins.data();
    for (int64_t s = 0; s < samples; ++s) {
        const uint64_t sample = start + s;
        const Words counter = {0, uint32_t(sample), index, uint32_t(sample >> 32)};
#pragma GCC ivdep
        for (int64_t j = 0; j < quads; ++j) {
            const Words words = philox({uint32_t(j), counter.b, counter.c, counter.d}, key0, key1);
            upper[j] = words.a;
            upper[j + quads] = words.b;
            upper[j + 2 * quads] = words.c;
            upper[j + 3 * quads] = words.d;
        }
        bool open = false;  // whether an upper word is that of an edge
        for (int64_t i = 0; i < values; ++i) {
            const uint32_t word = upper[i], *const cell = guide[word >> shift];
            int32_t j = int32_t(cell[0]) + (cell[1] < word);
            open |= cell[1] == word;
            if (j < 0) {  // several edges in the cell
                j = int32_t(std::lower_bound(tops + (cell[0] & MANY - 1), tops + (cell[2] & MANY - 1), word) - tops);
                open |= tops[j] == word;
            }
            bin[i] = j;
        }
        lost[s] = 0;
        for (int64_t i = 0; open && i < values; ++i) {
            if (tops[bin[i]] != upper[i]) continue;
            const uint32_t low = lower_word(i, quads, counter, key0, key1);
            while (bin[i] <= 2 * reach && tops[bin[i]] == upper[i] && lows[bin[i]] <= low) ++bin[i];
            lost[s] |= bin[i] > 2 * reach;
        }
        float *const row = out + s * values;
        for (int64_t i = 0; i < values; ++i) row[i] = float(image[i] + bin[i] - reach) * step;
    }
}
