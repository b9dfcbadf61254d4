/* What the load client is asked to do: its options and the request it sends. */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include "wire.h"
#include <getopt.h>
#include <sys/stat.h>

#define CONNECTIONS_MAX 16384
#define REQUEST_BYTES_MAX (3u << 20)

/* `rate` in requests per second (0: closed loop); the request file holds head and body, sent as they are. */
struct plan {
    const char *host, *request_file;
    unsigned port, connection_count;
    double rate, seconds, warmup_s, drain_s, ramp_s;
    uint64_t errors_max, expect_chunks;
    bool stream;
    char *request;
    size_t request_length;
};

static inline void read_request(struct plan *plan) {
    struct stat status;
    FILE *file = fopen(plan->request_file, "rb");
    if (!file || fstat(fileno(file), &status) < 0) die("cannot read %s: %s", plan->request_file, strerror(errno));
    if (status.st_size == 0 || status.st_size > REQUEST_BYTES_MAX) die("%s: not 1 to 3 M bytes", plan->request_file);
    plan->request_length = (size_t)status.st_size;
    plan->request = malloc(plan->request_length);
    if (!plan->request || fread(plan->request, 1, plan->request_length, file) != plan->request_length)
        die("cannot read %s", plan->request_file);
    fclose(file);
}

static inline void parse_options(struct plan *plan, int argc, char **argv) {
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},     {"port", required_argument, NULL, 'p'},
        {"request", required_argument, NULL, 'r'},  {"connections", required_argument, NULL, 'c'},
        {"rate", required_argument, NULL, 'R'},     {"seconds", required_argument, NULL, 's'},
        {"warmup-s", required_argument, NULL, 'w'}, {"drain-s", required_argument, NULL, 'd'},
        {"ramp-s", required_argument, NULL, 'a'},   {"errors-max", required_argument, NULL, 'e'},
        {"stream", no_argument, NULL, 'S'},         {"expect-chunks", required_argument, NULL, 'x'},
        {NULL, 0, NULL, 0}};
    *plan = (struct plan){.host = "127.0.0.1", .connection_count = 64, .seconds = 5, .warmup_s = 1, .drain_s = 30,
                          .errors_max = 1000};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
        case 'h': plan->host = optarg; break;
        case 'p': plan->port = (unsigned)number_option("port", optarg, 65535); break;
        case 'r': plan->request_file = optarg; break;
        case 'c': plan->connection_count = (unsigned)number_option("connections", optarg, CONNECTIONS_MAX); break;
        case 'R': plan->rate = number_option("rate", optarg, 1e6); break;
        case 's': plan->seconds = number_option("seconds", optarg, 3600); break;
        case 'w': plan->warmup_s = number_option("warmup-s", optarg, 600); break;
        case 'd': plan->drain_s = number_option("drain-s", optarg, 600); break;
        case 'a': plan->ramp_s = number_option("ramp-s", optarg, 600); break;
        case 'e': plan->errors_max = (uint64_t)number_option("errors-max", optarg, 1e9); break;
        case 'S': plan->stream = true; break;
        case 'x': plan->expect_chunks = (uint64_t)number_option("expect-chunks", optarg, 1e6); break;
        default: die("usage: load --port N --request FILE [--connections N] [--seconds F] [--rate F] [--stream] ...");
        }
    if (!plan->port || !plan->request_file || !plan->connection_count || plan->seconds <= 0)
        die("--port and --request are needed, --connections and --seconds must be above 0");
}

#endif
