/* What the load client measures, and how it is printed: one JSON object. */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include "histogram.h"
#include "wire.h"

#define ERROR_BYTES_SHOWN 1000

/* `answered` counts complete, correct answers of the whole run, `requests` and `chunks` those of the window. */
struct results {
    uint64_t answered, requests, chunks, errors, reconnects, unanswered, body_bytes;
    char first_error[ERROR_BYTES_SHOWN + 64];
    double cpu_s;
    struct histogram latency, first_byte, first_content, transit;
};

/* Counts an error and keeps the first: `what`, then `length` bytes of `detail`. */
static inline void note_error(struct results *results, const char *what, int status, const struct buffer *detail) {
    if (results->errors++) return;
    int length = detail && detail->length < ERROR_BYTES_SHOWN ? (int)detail->length : ERROR_BYTES_SHOWN;
    snprintf(results->first_error, sizeof results->first_error, "%s (status %d) %.*s", what, status,
             detail && detail->data ? length : 0, detail && detail->data ? detail->data : "");
    fprintf(stderr, "error: %s\n", results->first_error);
}

static inline void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", *text);
        else
            putchar(*text);
    }
    putchar('"');
}

static inline void print_results(const struct results *results, double seconds) {
    printf("{\"seconds\":%.3f,\"answered\":%llu,\"requests\":%llu,\"requests_per_s\":%.1f,\"chunks\":%llu,"
           "\"chunks_per_s\":%.1f,\"body_bytes\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"unanswered\":%llu,",
           seconds, (unsigned long long)results->answered, (unsigned long long)results->requests,
           (double)results->requests / seconds, (unsigned long long)results->chunks,
           (double)results->chunks / seconds, (unsigned long long)results->body_bytes,
           (unsigned long long)results->errors, (unsigned long long)results->reconnects,
           (unsigned long long)results->unanswered);
    print_histogram("latency_us", &results->latency);
    print_histogram("first_byte_us", &results->first_byte);
    print_histogram("first_content_us", &results->first_content);
    print_histogram("transit_us", &results->transit);
    printf("\"cpu_s\":%.3f,\"first_error\":", results->cpu_s);
    if (results->errors)
        print_string(results->first_error);
    else
        printf("null");
    printf("}\n");
}

#endif
