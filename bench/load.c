/* A load client for benchmarks: one thread, epoll, N keep-alive connections sending one request again and again.
 *
 * Closed loop by default: each connection sends its next request when the last one is answered. With --rate it is an
 * open loop: requests are due whether or not earlier ones have been answered, and latency counts from the time a request
 * was due, so that a stall in the server is not hidden by the client waiting for it. They arrive as a Poisson process
 * does, the same in each run: on a regular grid every request would meet the answer of the one that was sent a whole
 * number of steps before. After a warm-up comes the measured window ("begin" and "end" on stderr mark it, for whoever
 * samples the servers' CPU), then what is in flight is let finish. Prints one JSON object.
 */
#include "arrivals.h"
#include "plan.h"
#include "response.h"
#include "results.h"
#include <arpa/inet.h>

#define RECEIVE_BYTES (256u << 10)
#define CONNECT_TIMEOUT_S 2

enum activity { UNUSED, IDLE, SENDING, RECEIVING };

struct connection {
    int fd;
    enum activity activity;
    bool used_before, watches_out, saw_byte, saw_content;
    size_t sent;
    uint64_t due_ns;
    struct response response;
    struct connection *next_idle;
};

struct load {
    struct plan plan;
    int epoll, timer;
    uint64_t start_ns, begin_ns, end_ns, give_up_ns, now, armed_ns;
    uint64_t due_ns, random; /* open loop: when the next request is due */
    uint64_t sent_count;     /* open loop: arrivals taken so far; closed loop: connections started so far */
    unsigned in_flight;
    bool began, ended;
    double cpu_at_begin_s;
    struct connection *connections, *idle;
    struct results results;
};

static struct load load;
static char received[RECEIVE_BYTES];

static bool in_window(uint64_t at_ns) { return at_ns >= load.begin_ns && at_ns < load.end_ns; }

/* An open loop's request belongs to the window by when it was due, so that slow answers cannot fall out of it. */
static bool counts(const struct connection *connection) {
    return in_window(load.plan.rate > 0 ? connection->due_ns : load.now);
}

static void make_idle(struct connection *connection) {
    connection->activity = IDLE;
    connection->next_idle = load.idle;
    load.idle = connection;
}

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load.plan.port)};
    struct timeval timeout = {.tv_sec = CONNECT_TIMEOUT_S};
    if (inet_pton(AF_INET, load.plan.host, &address.sin_addr) != 1) die("--host must be an IPv4 address");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("cannot connect to %s:%u: %s", load.plan.host, load.plan.port, strerror(errno));
    non_blocking(fd);
    no_delay(fd);
    connection->fd = fd;
    connection->used_before = connection->watches_out = false;
    watch(load.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, connection);
}

static void reopen(struct connection *connection) {
    close(connection->fd);
    load.results.reconnects++;
    open_connection(connection);
}

static void send_more(struct connection *connection) {
    while (connection->sent < load.plan.request_length) {
        const char *rest = load.plan.request + connection->sent;
        ssize_t sent = send(connection->fd, rest, load.plan.request_length - connection->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) {
            /* On any other error the read side reports the end of the connection. */
            if (errno == EAGAIN && !connection->watches_out) {
                watch(load.epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLOUT, connection);
                connection->watches_out = true;
            }
            return;
        }
        connection->sent += (size_t)sent;
    }
    if (connection->watches_out) watch(load.epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
    connection->watches_out = false;
    connection->activity = RECEIVING;
}

static void start_request(struct connection *connection, uint64_t due_ns) {
    connection->due_ns = due_ns;
    connection->sent = 0;
    connection->saw_byte = connection->saw_content = false;
    connection->activity = SENDING;
    response_reset(&connection->response);
    load.in_flight++;
    send_more(connection);
}

/* The request is over, well or badly: the connection takes the next one, or rests. */
static void next_request(struct connection *connection) {
    load.in_flight--;
    connection->used_before = true;
    if (load.plan.rate > 0 || load.now >= load.end_ns)
        make_idle(connection);
    else
        start_request(connection, load.now);
}

static void content_arrived(void *context, uint64_t stamped_ns) {
    struct connection *connection = context;
    if (in_window(load.now)) {
        load.results.chunks++;
        record(&load.results.transit, load.now > stamped_ns ? load.now - stamped_ns : 0);
    }
    if (!connection->saw_content && counts(connection))
        record(&load.results.first_content, load.now - connection->due_ns);
    connection->saw_content = true;
}

/* What is wrong with a complete answer, or NULL. */
static const char *fault_of(const struct response *response) {
    if (response->status != 200) return "refused";
    if (response->events != load.plan.stream) return "wrong kind of answer";
    if (!response->events)
        return response->body.length &&
                       memmem(response->body.data, response->body.length, "\"finish_reason\":\"stop\"", 22)
                   ? NULL
                   : "answer without finish_reason";
    if (response->failed) return "error event in the stream";
    if (!response->finished || !response->done) return "stream ended without finish_reason and [DONE]";
    if (load.plan.expect_chunks && response->content_chunks != load.plan.expect_chunks) return "wrong number of chunks";
    return NULL;
}

static void complete(struct connection *connection) {
    struct response *response = &connection->response;
    const char *fault = fault_of(response);
    if (fault) {
        note_error(&load.results, fault, response->status, response->failed ? &response->head : &response->body);
    } else {
        load.results.answered++;
        if (counts(connection)) {
            load.results.requests++;
            load.results.body_bytes += response->body_bytes;
            record(&load.results.latency, load.now - connection->due_ns);
        }
    }
    if (response->closes) reopen(connection);
    next_request(connection);
}

static void lost(struct connection *connection) {
    if (connection->activity == SENDING || connection->activity == RECEIVING) {
        /* A server may close an idle connection just as it is used again: that request was never read, so repeat it. */
        bool raced = connection->used_before && !connection->saw_byte;
        reopen(connection);
        if (raced) {
            load.in_flight--;
            start_request(connection, connection->due_ns);
            return;
        }
        note_error(&load.results, "connection lost", connection->response.status, &connection->response.head);
        next_request(connection);
        return;
    }
    reopen(connection);
}

/* Feeds what came; a stream's bytes are read in one go, its chunks all arrive at the time of that read. */
static void feed(struct connection *connection, size_t length) {
    struct response *response = &connection->response;
    if (!connection->saw_byte && counts(connection))
        record(&load.results.first_byte, load.now - connection->due_ns);
    connection->saw_byte = true;
    size_t used = response_feed(response, received, length, content_arrived, connection);
    if (response->part == BROKEN || used < length) {
        note_error(&load.results, response->part == BROKEN ? "unreadable answer" : "bytes after the answer",
                   response->status, &response->head);
        reopen(connection);
        next_request(connection);
    } else if (response->part == COMPLETE) {
        complete(connection);
    }
}

static void on_readable(struct connection *connection) {
    ssize_t got = recv(connection->fd, received, sizeof received, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    load.now = now_ns();
    if (got <= 0 || connection->activity == IDLE || connection->activity == UNUSED)
        lost(connection);
    else
        feed(connection, (size_t)got);
}

static uint64_t arrival_ns(void) {
    if (load.plan.rate > 0) return load.due_ns;
    double share = (double)load.sent_count / load.plan.connection_count;
    return load.start_ns + (uint64_t)(share * load.plan.ramp_s * (double)NS_PER_S);
}

static void count_arrival(void) {
    load.sent_count++;
    if (load.plan.rate > 0) load.due_ns += poisson_gap_ns(&load.random, load.plan.rate);
}

/* Sends what is due. Returns when the next request is due, or 0 when that does not depend on time. */
static uint64_t send_due(void) {
    for (;; count_arrival()) {
        uint64_t due_ns = arrival_ns();
        bool exhausted = load.plan.rate > 0 ? due_ns >= load.end_ns : load.sent_count >= load.plan.connection_count;
        if (exhausted || (load.plan.rate > 0 && !load.idle)) return 0;
        if (due_ns > load.now) return due_ns;
        struct connection *connection = &load.connections[load.sent_count % load.plan.connection_count];
        if (load.plan.rate > 0) {
            connection = load.idle;
            load.idle = connection->next_idle;
        }
        start_request(connection, due_ns);
    }
}

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns) { return a_ns && a_ns < b_ns ? a_ns : b_ns; }

/* Moves from warm-up to window to draining. Returns when to look again, or 0 when the run is over. */
static uint64_t keep_time(void) {
    if (!load.began && load.now >= load.begin_ns) {
        load.began = true;
        load.cpu_at_begin_s = cpu_seconds();
        fputs("begin\n", stderr);
    }
    if (!load.ended && load.now >= load.end_ns) {
        load.ended = true;
        load.results.cpu_s = cpu_seconds() - load.cpu_at_begin_s;
        fputs("end\n", stderr);
    }
    bool all_sent = load.plan.rate == 0 || arrival_ns() >= load.end_ns;
    if (load.ended && all_sent && load.in_flight == 0) return 0;
    if (load.now >= load.give_up_ns || load.results.errors > load.plan.errors_max) return 0;
    return load.began ? load.ended ? load.give_up_ns : load.end_ns : load.begin_ns;
}

static void run(void) {
    struct epoll_event events[EVENTS_PER_WAIT];
    for (;;) {
        load.now = now_ns();
        uint64_t due_ns = send_due(), look_ns = keep_time();
        if (look_ns == 0) break;
        uint64_t wake_ns = earlier(due_ns, look_ns);
        if (wake_ns != load.armed_ns) arm_timer(load.timer, load.armed_ns = wake_ns);
        int count = epoll_wait(load.epoll, events, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection)
                clear_timer(load.timer);
            else if (events[i].events & EPOLLOUT && connection->activity == SENDING)
                send_more(connection);
            if (connection && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(connection);
        }
    }
    load.results.unanswered = load.in_flight;
    if (load.plan.rate > 0)
        for (; arrival_ns() < load.end_ns; count_arrival()) load.results.unanswered++;
}

int main(int argc, char **argv) {
    parse_options(&load.plan, argc, argv);
    read_request(&load.plan);
    raise_file_limit();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.timer = make_timer(load.epoll, NULL);
    load.connections = calloc(load.plan.connection_count, sizeof *load.connections);
    if (!load.connections) die("out of memory");
    for (unsigned i = 0; i < load.plan.connection_count; i++) {
        open_connection(&load.connections[i]);
        if (load.plan.rate > 0) make_idle(&load.connections[i]);
    }
    load.start_ns = load.due_ns = now_ns();
    load.begin_ns = load.start_ns + (uint64_t)(load.plan.warmup_s * (double)NS_PER_S);
    load.end_ns = load.begin_ns + (uint64_t)(load.plan.seconds * (double)NS_PER_S);
    load.give_up_ns = load.end_ns + (uint64_t)(load.plan.drain_s * (double)NS_PER_S);
    run();
    print_results(&load.results, load.plan.seconds);
    return load.results.errors || load.results.unanswered ? 1 : 0;
}
