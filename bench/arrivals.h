/* When an open loop's requests are due: a Poisson process, the same one in each run. */
#ifndef ARRIVALS_H
#define ARRIVALS_H

#include <math.h>
#include <stdint.h>

/* The next of a sequence of random numbers: SplitMix64 (Steele, Lea, Flood: Fast splittable generators, 2014). */
static inline uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The nanoseconds from one arrival to the next, at `rate` a second on average. */
static inline uint64_t poisson_gap_ns(uint64_t *state, double rate) {
    double uniform = ((double)(random_next(state) >> 11) + 1) / 9007199254740992.0; /* in (0, 1] */
    return (uint64_t)(-log(uniform) * 1e9 / rate);
}

#endif
