/* The load generator of comparison/compare: the server behind the proxies, and the clients in front
 * of them. It measures rates and latencies and checks every transfer. It knows nothing about the
 * proxy in between.
 *
 *   load SECONDS serve PORTS
 *   load SECONDS stream PORT up|down CONNECTIONS BYTES
 *   load SECONDS short PORT TOTAL AT_ONCE
 *   load SECONDS trips PORT CONNECTIONS ACTIVE TRIPS
 *   load SECONDS idle PORT CONNECTIONS
 *
 * It gives up after SECONDS. A client prints "ready", waits for a line on stdin, does its work,
 * prints its result as one line of JSON, and keeps its connections open until stdin ends. The
 * server prints its ports and serves until stdin ends.
 *
 * The first byte of a connection tells the server what to do:
 *   'E'  echo: every byte is sent back as it arrives
 *   'U'  upload: 8 bytes of length follow, then that much data; the answer is the received length,
 *        in 8 bytes
 *   'D'  download: 8 bytes of length follow; the answer is that much data and the end
 * Data repeats one fixed block, so a missing, duplicate or misplaced byte is detected. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE = 64,          /* bytes of a round trip */
    HEADER = 9,            /* 'U' or 'D' and a length */
    CHUNK = 256 * 1024,    /* bytes of one send or checked receive */
    BLOCK = CHUNK + 3,     /* prime, so that no buffer size divides it */
    DISCARD = 1024 * 1024, /* bytes of one unchecked receive */
    CHECK_ONE_IN = 16,     /* one in this many receives is compared; others are only counted */
    EVENTS = 256,
    TURN = 4,              /* sends or receives before the next connection's turn */
    BACKLOG = 4096,
};

static unsigned char block[BLOCK + CHUNK];
static unsigned char scratch[CHUNK];
static volatile uint64_t done_units;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fill_block(void) {
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < BLOCK; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        block[i] = (unsigned char)(x >> 32);
    }
    memcpy(block + BLOCK, block, CHUNK);
}

/* What a connection still has to do. Servers and clients differ only in their roles. */
struct conn {
    int fd;
    enum { NEW, ECHO, SENDING, RECEIVING, CLOSING } state;
    unsigned char head[MESSAGE];
    size_t head_len;
    uint64_t length, position; /* of the data, in bytes */
    uint64_t started;          /* when the round trip began, in ns */
    uint64_t serial;
    unsigned receives;
};

static void must(int result, const char *what) {
    if (result < 0)
        die("%s: %s", what, strerror(errno));
}

static void watch(int epoll, int operation, struct conn *conn, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = conn};
    must(epoll_ctl(epoll, operation, conn->fd, &event), "epoll_ctl");
}

static struct sockaddr_in local(uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void no_delay(int fd) {
    int on = 1;
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

/* Sends from the block until the socket is full, the data is out, or the turn is over. */
static int send_data(struct conn *conn) {
    for (int turn = 0; turn < TURN && conn->position < conn->length; turn++) {
        uint64_t left = conn->length - conn->position;
        ssize_t n = send(conn->fd, block + conn->position % BLOCK, left < CHUNK ? left : CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        conn->position += (uint64_t)n;
    }
    return 0;
}

/* Receives until the socket is empty, the data is in, or the turn is over. Returns 1 at the end of
 * the stream, -1 on an error, and -2 if the data is not what was sent. */
static int receive_data(struct conn *conn) {
    for (int turn = 0; turn < TURN && conn->position < conn->length; turn++) {
        int check = conn->receives++ % CHECK_ONE_IN == 0;
        uint64_t left = conn->length - conn->position, most = check ? CHUNK : DISCARD;
        /* With MSG_TRUNC, TCP drops the bytes instead of copying them. */
        ssize_t n = recv(conn->fd, check ? scratch : NULL, left < most ? left : most, MSG_DONTWAIT | (check ? 0 : MSG_TRUNC));
        if (n == 0)
            return 1;
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        if (check && memcmp(scratch, block + conn->position % BLOCK, (size_t)n) != 0)
            return -2;
        conn->position += (uint64_t)n;
    }
    return 0;
}

/* ---- the server ---- */

static void complain(const struct conn *conn, const char *what) {
    fprintf(stderr, "server: %s, at %" PRIu64 " of %" PRIu64 " bytes\n", what, conn->position, conn->length);
}

/* Ends a connection, with a reset if it went wrong, so that the client notices. */
static void drop(struct conn *conn, const char *wrong) {
    if (wrong) {
        struct linger reset = {.l_onoff = 1};
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        complain(conn, wrong);
    }
    close(conn->fd);
    free(conn);
}

static void serve_echo(struct conn *conn) {
    ssize_t n = recv(conn->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        return drop(conn, NULL);
    if (send(conn->fd, scratch, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
        drop(conn, "an echo did not fit");
}

static void serve_upload(struct conn *conn) {
    int end = receive_data(conn);
    if (end != 0)
        return drop(conn, end == -2 ? "wrong data in an upload" : "an upload ended early");
    if (conn->position == conn->length) {
        if (send(conn->fd, &conn->position, sizeof conn->position, MSG_NOSIGNAL) != sizeof conn->position)
            return drop(conn, "the answer to an upload cannot be sent");
        conn->state = CLOSING;
    }
}

static void serve_download(struct conn *conn) {
    if (send_data(conn) < 0)
        return drop(conn, "a download ended early");
    if (conn->position == conn->length)
        drop(conn, NULL);
}

static void serve_new(int epoll, struct conn *conn) {
    ssize_t n = recv(conn->fd, conn->head + conn->head_len, HEADER - conn->head_len, MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        return drop(conn, NULL);
    if (conn->head[0] == 'E') { /* The peeked bytes are echoed too. */
        conn->state = ECHO;
        return serve_echo(conn);
    }
    if (recv(conn->fd, conn->head + conn->head_len, (size_t)n, MSG_DONTWAIT) != n)
        return drop(conn, "a header cannot be read");
    conn->head_len += (size_t)n;
    if (conn->head_len < HEADER)
        return;
    memcpy(&conn->length, conn->head + 1, sizeof conn->length);
    if (conn->head[0] == 'U') {
        conn->state = RECEIVING;
        serve_upload(conn);
    } else if (conn->head[0] == 'D') {
        conn->state = SENDING;
        watch(epoll, EPOLL_CTL_MOD, conn, EPOLLOUT);
    } else {
        drop(conn, "an unknown header");
    }
}

static void serve_closing(struct conn *conn) {
    char byte;
    ssize_t n = recv(conn->fd, &byte, 1, MSG_DONTWAIT);
    if (n > 0)
        drop(conn, "more bytes than were announced");
    else if (n == 0 || errno != EAGAIN)
        drop(conn, NULL);
}

static void accept_one(int epoll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED)
            die("server: accept: %s", strerror(errno));
        return;
    }
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        die("server: no memory");
    conn->fd = fd;
    no_delay(fd);
    watch(epoll, EPOLL_CTL_ADD, conn, EPOLLIN);
}

static int listen_on(uint16_t *port) {
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(fd, "socket");
    must(bind(fd, (struct sockaddr *)&address, size), "bind");
    must(listen(fd, BACKLOG), "listen");
    must(getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

static void serve(int ports) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll, "epoll_create1");
    struct conn *listeners = calloc((size_t)ports + 1, sizeof *listeners), *last = listeners + ports;
    if (!listeners)
        die("server: no memory");
    for (int i = 0; i < ports; i++) {
        uint16_t port;
        listeners[i].fd = listen_on(&port);
        watch(epoll, EPOLL_CTL_ADD, &listeners[i], EPOLLIN);
        printf("%u%c", port, i + 1 < ports ? ' ' : '\n');
    }
    fflush(stdout);
    last->fd = STDIN_FILENO;
    watch(epoll, EPOLL_CTL_ADD, last, EPOLLIN);

    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn == last)
                return;
            if (conn >= listeners && conn < last)
                accept_one(epoll, conn->fd);
            else if (conn->state == NEW)
                serve_new(epoll, conn);
            else if (conn->state == ECHO)
                serve_echo(conn);
            else if (conn->state == RECEIVING)
                serve_upload(conn);
            else if (conn->state == SENDING)
                serve_download(conn);
            else
                serve_closing(conn);
        }
    }
}

/* ---- the clients ---- */

static void dial(struct conn *conn, uint16_t port) {
    struct sockaddr_in address = local(port);
    memset(conn, 0, sizeof *conn);
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(conn->fd, "socket");
    must(connect(conn->fd, (struct sockaddr *)&address, sizeof address), "connect");
    no_delay(conn->fd);
}

static struct conn *conns(size_t count) {
    struct conn *all = calloc(count, sizeof *all);
    if (!all)
        die("no memory");
    return all;
}

/* Reports that everything is set up, and waits for the signal to begin. */
static void ready(void) {
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        exit(0);
}

/* Prints the result, and keeps the connections open until stdin ends. */
static void result(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    while (getchar() != EOF) {
    }
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void timed_result(uint64_t units, uint64_t ns, uint64_t *latencies) {
    qsort(latencies, units, sizeof *latencies, ascending);
    result("{\"units\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"ns\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p99\": %" PRIu64
           ", \"p999\": %" PRIu64 ", \"max\": %" PRIu64 "}",
           units, units * 2 * MESSAGE, ns, latencies[(units - 1) / 2], latencies[(units - 1) * 99 / 100],
           latencies[(units - 1) * 999 / 1000], latencies[units - 1]);
}

/* Every message is different, so an answer to a different message is detected. */
static void send_message(struct conn *conn, uint64_t serial) {
    unsigned char *message = conn->head;
    message[0] = 'E';
    memcpy(message + 1, block + serial % BLOCK, MESSAGE - 1);
    memcpy(message + 1, &serial, sizeof serial);
    conn->serial = serial;
    conn->head_len = 0;
    conn->started = now();
    ssize_t n = send(conn->fd, message, MESSAGE, MSG_NOSIGNAL);
    if (n != MESSAGE)
        die("sending message %" PRIu64 ": %s", serial, n < 0 ? strerror(errno) : "a short write");
}

/* Returns whether the answer is complete. Ends the program if it is wrong. */
static int receive_answer(struct conn *conn, int flags) {
    unsigned char answer[MESSAGE + 1];
    ssize_t n = recv(conn->fd, answer, sizeof answer - conn->head_len, flags);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        die("the answer to message %" PRIu64 " ended after %zu of %d bytes: %s", conn->serial, conn->head_len, MESSAGE,
            n < 0 ? strerror(errno) : "end of stream");
    if (conn->head_len + (size_t)n > MESSAGE)
        die("the answer to message %" PRIu64 " is longer than the message", conn->serial);
    if (memcmp(answer, conn->head + conn->head_len, (size_t)n) != 0)
        die("the answer to message %" PRIu64 " is not the message", conn->serial);
    conn->head_len += (size_t)n;
    return conn->head_len == MESSAGE;
}

static void one_trip(struct conn *conn, uint64_t serial) {
    send_message(conn, serial);
    while (!receive_answer(conn, 0)) {
    }
}

static struct conn *open_and_try(uint16_t port, size_t count) {
    struct conn *all = conns(count);
    for (size_t i = 0; i < count; i++) {
        dial(&all[i], port);
        one_trip(&all[i], i);
    }
    return all;
}

static void trips(uint16_t port, size_t count, size_t active, uint64_t total) {
    struct conn *all = open_and_try(port, count);
    uint64_t *latencies = calloc(total, sizeof *latencies), begun = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll, "epoll_create1");
    if (!latencies || active > count || active > total)
        die("more active connections than connections or round trips");
    for (size_t i = 0; i < count; i++)
        watch(epoll, EPOLL_CTL_ADD, &all[i], EPOLLIN);
    ready();

    uint64_t start = now();
    /* The active connections are spread over all. */
    for (size_t i = 0; i < active; i++)
        send_message(&all[i * (count / active)], begun++);
    struct epoll_event events[EVENTS];
    while (done_units < total) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->head_len == MESSAGE)
                die("bytes that nobody asked for, or an end");
            if (!receive_answer(conn, MSG_DONTWAIT))
                continue;
            latencies[done_units++] = now() - conn->started;
            if (begun < total)
                send_message(conn, begun++);
        }
    }
    timed_result(total, now() - start, latencies);
}

static void short_connections(uint16_t port, uint64_t total, size_t at_once) {
    struct conn *all = conns(at_once);
    uint64_t *latencies = calloc(total, sizeof *latencies), begun = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll, "epoll_create1");
    if (!latencies || at_once > total)
        die("more connections at once than connections");
    ready();

    uint64_t start = now();
    for (size_t i = 0; i < at_once; i++) {
        uint64_t began = now();
        dial(&all[i], port);
        watch(epoll, EPOLL_CTL_ADD, &all[i], EPOLLIN);
        send_message(&all[i], begun++);
        all[i].started = began;
    }
    struct epoll_event events[EVENTS];
    while (done_units < total) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (!receive_answer(conn, MSG_DONTWAIT))
                continue;
            latencies[done_units++] = now() - conn->started;
            close(conn->fd);
            if (begun == total)
                continue;
            uint64_t began = now();
            dial(conn, port);
            watch(epoll, EPOLL_CTL_ADD, conn, EPOLLIN);
            send_message(conn, begun++);
            conn->started = began;
        }
    }
    timed_result(total, now() - start, latencies);
}

/* Advances one stream. Returns whether it is complete to its last byte. */
static int go_on(struct conn *conn, int up) {
    if (conn->position < conn->length) {
        int end = up ? send_data(conn) : receive_data(conn);
        if (end != 0)
            die("a stream ended after %" PRIu64 " of %" PRIu64 " bytes: %s", conn->position, conn->length,
                end == 1 ? "end of stream" : end == -2 ? "wrong data" : strerror(errno));
        return 0;
    }
    uint64_t count = 0;
    ssize_t n = recv(conn->fd, &count, sizeof count, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (up && (n != sizeof count || count != conn->length))
        die("the server's count of an upload is %" PRIu64 " (%zd bytes), not %" PRIu64, count, n, conn->length);
    if (!up && n != 0)
        die("a download does not end after %" PRIu64 " bytes: %s", conn->length, n < 0 ? strerror(errno) : "more data");
    return 1;
}

static void stream(uint16_t port, int up, size_t count, uint64_t bytes) {
    struct conn *all = conns(count);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(epoll, "epoll_create1");
    ready();

    uint64_t start = now();
    for (size_t i = 0; i < count; i++) {
        unsigned char header[HEADER] = {up ? 'U' : 'D'};
        memcpy(header + 1, &bytes, sizeof bytes);
        dial(&all[i], port);
        all[i].length = bytes;
        if (send(all[i].fd, header, HEADER, MSG_NOSIGNAL) != HEADER)
            die("sending a header: %s", strerror(errno));
        watch(epoll, EPOLL_CTL_ADD, &all[i], up ? EPOLLOUT : EPOLLIN);
    }
    struct epoll_event events[EVENTS];
    while (done_units < count) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            if (go_on(conn, up)) {
                close(conn->fd);
                done_units++;
            } else if (up && conn->position == conn->length && conn->state == NEW) {
                conn->state = CLOSING;
                watch(epoll, EPOLL_CTL_MOD, conn, EPOLLIN);
            }
        }
    }
    result("{\"units\": %zu, \"bytes\": %" PRIu64 ", \"ns\": %" PRIu64 "}", count, count * bytes, now() - start);
}

/* Each connection passes a message and then is idle. At the end, each must still pass one. */
static void idle(uint16_t port, size_t count) {
    struct conn *all = open_and_try(port, count);
    ready();
    uint64_t start = now();
    for (size_t i = 0; i < count; i++, done_units++)
        one_trip(&all[i], count + i);
    result("{\"units\": %zu, \"bytes\": %zu, \"ns\": %" PRIu64 "}", count, count * 2 * MESSAGE, now() - start);
}

static void too_late(int signal) {
    char text[96];
    int n = snprintf(text, sizeof text, "not done in time: %" PRIu64 " units were complete\n", done_units);
    (void)!write(STDERR_FILENO, text, (size_t)n);
    (void)signal;
    _exit(3);
}

int main(int count, char **words) {
    uint64_t numbers[8] = {0};
    for (int i = 0; i < count && i < 8; i++)
        numbers[i] = strtoull(words[i], NULL, 10);
    if (count < 4)
        die("usage: see the head of comparison/load.c");
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
    files.rlim_cur = files.rlim_max;
    must(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, too_late);
    alarm((unsigned)numbers[1]);
    fill_block();

    const char *mode = words[2];
    uint16_t port = (uint16_t)numbers[3];
    if (strcmp(mode, "serve") == 0)
        serve((int)numbers[3]);
    else if (strcmp(mode, "stream") == 0 && count == 7)
        stream(port, strcmp(words[4], "up") == 0, numbers[5], numbers[6]);
    else if (strcmp(mode, "short") == 0 && count == 6)
        short_connections(port, numbers[4], numbers[5]);
    else if (strcmp(mode, "trips") == 0 && count == 7)
        trips(port, numbers[4], numbers[5], numbers[6]);
    else if (strcmp(mode, "idle") == 0 && count == 5)
        idle(port, numbers[4]);
    else
        die("usage: see the head of comparison/load.c");
    return 0;
}
