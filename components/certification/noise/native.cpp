// The noise of reference.py, compiled: the same integers.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Words side by side, each in the lower half of 64 bits; the upper halves mean nothing.
#if defined(__AVX512F__)
typedef uint64_t Lanes __attribute__((vector_size(64)));
static inline Lanes product(Lanes a, uint32_t b) { return Lanes(_mm512_mul_epu32(__m512i(a), _mm512_set1_epi64(b))); }
#elif defined(__AVX2__)
typedef uint64_t Lanes __attribute__((vector_size(32)));
static inline Lanes product(Lanes a, uint32_t b) { return Lanes(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(b))); }
#else
typedef uint64_t Lanes __attribute__((vector_size(16)));
static inline Lanes product(Lanes a, uint32_t b) { return (a & 0xFFFFFFFFu) * b; }
#endif

static const int LANES = sizeof(Lanes) / 8, QUADS = 256;  // of which there are so many at once
static const uint32_t LOWER_WORDS = 1u << 31, MANY = 1u << 31;

struct Sample {
    uint64_t seed, number;
    uint32_t index;
};

struct Words { Lanes a, b, c, d; };

static inline Words philox(const Sample &sample, Lanes quads, uint32_t flag) {
    const Lanes none = {};
    const uint32_t low = uint32_t(sample.number), high = uint32_t(sample.number >> 32);
    Words counter = {quads, none + low, none + sample.index, none + (high | flag)};
    uint32_t key0 = uint32_t(sample.seed), key1 = uint32_t(sample.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const Lanes p = product(counter.a, 0xD2511F53u), q = product(counter.c, 0xCD9E8D57u);
        counter = {q >> 32 ^ counter.b ^ key0, q, p >> 32 ^ counter.d ^ key1, p};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Two words of each lane, side by side in memory.
static inline void store(uint32_t *to, Lanes first, Lanes second) {
    const Lanes both = (first & 0xFFFFFFFFu) | second << 32;
    std::memcpy(to, &both, sizeof both);
}

// The upper words of the quads from `first` on, at least `count` of them.
static inline void draw(uint32_t (*words)[QUADS], const Sample &sample, uint32_t first, int64_t count) {
    Lanes quads = {};
    for (int lane = 0; lane < LANES; ++lane) quads[lane] = first + 2 * lane;
    for (int64_t j = 0; j < count; j += 2 * LANES, quads += 2 * LANES) {
        const Words even = philox(sample, quads, 0), odd = philox(sample, quads + 1, 0);
        store(words[0] + j, even.a, odd.a);
        store(words[1] + j, even.b, odd.b);
        store(words[2] + j, even.c, odd.c);
        store(words[3] + j, even.d, odd.d);
    }
}

// The lower word of one value.
static uint32_t lower_word(const Sample &sample, int64_t value, int64_t quads) {
    const Lanes none = {};
    const Words words = philox(sample, none + uint32_t(value % quads), LOWER_WORDS);
    const Lanes of_quarters[] = {words.a, words.b, words.c, words.d};
    return uint32_t(of_quarters[value / quads][0]);
}

// The attributes of DiscreteNormal.
struct Table {
    const uint32_t *tops, *lows;
    const uint64_t *guide;
    int32_t resolution, reach;
};

// See discrete_normal.cells_of.
static inline uint32_t cell_of(uint32_t word, int32_t resolution) {
    const uint32_t upper = word >> 31;
    const float distance = float(int32_t(word ^ (0u - upper))) + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &distance, 4);
    return (bits >> (23 - resolution)) - (127u << resolution) + (upper << (5 + resolution));
}

// The bins of `words`, by the guide alone. Returns whether some are open: the word is that of an edge, so that the lower
// word decides, or there are several edges in the cell.
static inline bool look_up(uint32_t *bins, const uint32_t *words, int64_t count, const Table &table) {
    const uint64_t *const guide = table.guide;
    const int32_t resolution = table.resolution;
    uint32_t cells[QUADS], open = 0;
    for (int64_t i = 0; i < count; ++i) cells[i] = cell_of(words[i], resolution);
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t below = uint32_t(guide[cells[i]]), top = uint32_t(guide[cells[i]] >> 32);
        open |= (top == words[i] ? MANY : 0u) | below;
        bins[i] = below + (top < words[i]);
    }
    return open & MANY;
}

// The bin of value number `value`, whose upper word is `word`: one in a million needs this.
static int32_t search(const Sample &sample, int64_t value, int64_t quads, uint32_t word, const Table &table) {
    const int32_t edges = 2 * table.reach + 1;
    int32_t bin = int32_t(std::lower_bound(table.tops, table.tops + edges, word) - table.tops);
    if (table.tops[bin] != word) return bin;
    const uint32_t low = lower_word(sample, value, quads);
    while (bin < edges && table.tops[bin] == word && table.lows[bin] <= low) ++bin;
    return bin;
}

// out[s] = (image + noise of sample start + s) * step for s in [0, samples), `values` floats each; lost[s]: whether.
extern "C" void noisy_copies(float *out, uint8_t *lost, const int32_t *image, float step, const Table *table,
                             uint64_t seed, uint32_t index, uint64_t start, int64_t samples, int64_t values) {
    const int64_t quads = (values + 3) / 4;
    std::vector<int32_t> lowest(image, image + values);
    for (int32_t &value : lowest) value -= table->reach;
    for (int64_t s = 0; s < samples; ++s) {
        const Sample sample = {seed, start + s, index};
        lost[s] = 0;
        for (int64_t first = 0; first < quads; first += QUADS) {
            uint32_t words[4][QUADS], bins[QUADS];
            draw(words, sample, uint32_t(first), std::min<int64_t>(QUADS, quads - first));
            for (int64_t quarter = 0; quarter < 4; ++quarter) {
                const int64_t begin = quarter * quads + first;
                const int64_t count = std::min({int64_t(QUADS), quads - first, values - begin});
                if (look_up(bins, words[quarter], count, *table)) {
                    for (int64_t i = 0; i < count; ++i) {
                        bins[i] = search(sample, begin + i, quads, words[quarter][i], *table);
                        lost[s] |= bins[i] > 2u * table->reach;
                    }
                }
                float *const row = out + s * values + begin;
                for (int64_t i = 0; i < count; ++i) row[i] = float(lowest[begin + i] + int32_t(bins[i])) * step;
            }
        }
    }
}
