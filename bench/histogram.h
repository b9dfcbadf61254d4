/* A latency histogram with log-linear buckets: 1,024 to each power of two, so a percentile is within 0.1 % of the truth
 * from nanoseconds to hours, in constant memory and constant time per sample.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define SUB_BITS 10
#define SUB_BUCKETS (1u << SUB_BITS)
#define BUCKETS ((64 - SUB_BITS + 1) * SUB_BUCKETS)

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t samples, max_ns;
};

static inline unsigned bucket_of(uint64_t value_ns) {
    if (value_ns < SUB_BUCKETS) return (unsigned)value_ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value_ns) - SUB_BITS;
    return (shift + 1) * SUB_BUCKETS + (unsigned)(value_ns >> shift) - SUB_BUCKETS;
}

/* The highest value that falls into a bucket. */
static inline uint64_t bucket_top(unsigned bucket) {
    if (bucket < SUB_BUCKETS) return bucket;
    unsigned shift = bucket / SUB_BUCKETS - 1;
    return (((uint64_t)(bucket % SUB_BUCKETS) + SUB_BUCKETS + 1) << shift) - 1;
}

static inline void record(struct histogram *histogram, uint64_t value_ns) {
    histogram->counts[bucket_of(value_ns)]++;
    histogram->samples++;
    if (value_ns > histogram->max_ns) histogram->max_ns = value_ns;
}

/* The value below which `share` (0 to 1) of the samples lie, in ns; 0 without samples. */
static inline uint64_t percentile(const struct histogram *histogram, double share) {
    uint64_t rank = (uint64_t)(share * (double)histogram->samples), seen = 0;
    for (unsigned bucket = 0; bucket < BUCKETS && histogram->samples; bucket++) {
        seen += histogram->counts[bucket];
        if (seen > rank) return bucket_top(bucket) < histogram->max_ns ? bucket_top(bucket) : histogram->max_ns;
    }
    return histogram->max_ns;
}

/* Prints `"name":{...},` in microseconds; null when nothing was recorded. */
static inline void print_histogram(const char *name, const struct histogram *histogram) {
    if (histogram->samples == 0) {
        printf("\"%s\":null,", name);
        return;
    }
    printf("\"%s\":{\"samples\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name,
           (unsigned long long)histogram->samples, (double)percentile(histogram, 0.5) / 1e3,
           (double)percentile(histogram, 0.9) / 1e3, (double)percentile(histogram, 0.99) / 1e3,
           (double)histogram->max_ns / 1e3);
}

#endif
