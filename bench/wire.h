/* What the bench engine and the load client share: the clock, bounded buffers, sockets and option parsing.
 *
 * Both programs are single-threaded event loops on one machine, so CLOCK_MONOTONIC is one clock for both: a timestamp
 * written by the engine and read by the client gives a transit time without any synchronisation.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define BUFFER_BYTES_MAX (4u << 20)
#define HEAD_BYTES_MAX (64u << 10)
#define EVENTS_PER_WAIT 512
/* Marks a content chunk: followed by STAMP_DIGITS digits, the engine's clock when it composed the chunk. */
#define STAMP_MARK "@ns:"
#define STAMP_DIGITS 20

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

struct buffer {
    char *data;
    size_t length, capacity;
};

/* Makes room for `extra` more bytes. Returns false, and changes nothing, when that would pass BUFFER_BYTES_MAX. */
static inline bool buffer_reserve(struct buffer *buffer, size_t extra) {
    size_t needed = buffer->length + extra;
    if (needed <= buffer->capacity) return true;
    if (needed > BUFFER_BYTES_MAX) return false;
    size_t capacity = buffer->capacity ? buffer->capacity : 4096;
    while (capacity < needed) capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data) die("out of memory");
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

static inline bool buffer_append(struct buffer *buffer, const void *data, size_t length) {
    if (!buffer_reserve(buffer, length)) return false;
    memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    return true;
}

static inline void buffer_consume(struct buffer *buffer, size_t length) {
    buffer->length -= length;
    if (buffer->length) memmove(buffer->data, buffer->data + length, buffer->length);
}

static inline void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* The value of header `name` (lower case, with its colon) in a head that ends in an empty line, or NULL. */
static inline const char *header_value(const char *head, size_t length, const char *name) {
    size_t name_length = strlen(name);
    const char *line = memchr(head, '\n', length);
    while (line && (size_t)(++line - head) + name_length < length) {
        if (strncasecmp(line, name, name_length) == 0) {
            line += name_length;
            while (*line == ' ') line++;
            return line;
        }
        line = memchr(line, '\n', length - (size_t)(line - head));
    }
    return NULL;
}

static inline void no_delay(int fd) {
    int on = 1;
    /* Without it every small chunk waits for the previous one's ACK, and the bench would measure Nagle. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void non_blocking(int fd) {
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) die("fcntl: %s", strerror(errno));
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, void *pointer) {
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
}

static inline int make_timer(int epoll, void *pointer) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer < 0) die("timerfd_create: %s", strerror(errno));
    watch(epoll, EPOLL_CTL_ADD, timer, EPOLLIN, pointer);
    return timer;
}

/* Arms for an absolute time; a time already past fires at once. */
static inline void arm_timer(int timer, uint64_t due_ns) {
    struct itimerspec at = {.it_value = {(time_t)(due_ns / NS_PER_S), (long)(due_ns % NS_PER_S)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) < 0) die("timerfd_settime: %s", strerror(errno));
}

static inline void clear_timer(int timer) {
    uint64_t expirations;
    if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("timer: %s", strerror(errno));
}

/* Listens on the loopback address (port 0: any free one) and prints `{"port":N}`: who started us waits for that. */
static inline int listen_on(unsigned port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 4096) < 0)
        die("cannot listen on port %u: %s", port, strerror(errno));
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("{\"port\":%u}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The number that an option was given; ends the program when it is not one or lies outside 0..`max`. */
static inline double number_option(const char *name, const char *text, double max) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= max)) die("--%s: %s is not in 0..%g", name, text, max);
    return value;
}

static inline double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

#endif
