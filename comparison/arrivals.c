/* The servers, the clients and the witness of comparison/failover. It knows nothing about the proxy
 * in between.
 *
 *   arrivals SECONDS server ADDRESS PORT CHECK_PORT NUMBER
 *   arrivals SECONDS clients PORT RATE COUNT PATIENCE_MS
 *   arrivals SECONDS attempts ADDRESS PORT
 *
 * It gives up after SECONDS. Each mode prints "ready" when it is set up, and ends when stdin ends.
 * Times are nanoseconds of CLOCK_MONOTONIC.
 *
 * A server answers "PING" with "PONG NUMBER", and anything else with the same bytes. On SIGUSR1 it
 * vanishes: its kernel drops every packet that would open a connection, as if the machine had lost
 * its power. On SIGUSR2 it hangs: connections are accepted and not answered.
 *
 * Clients wait for a line on stdin and then connect at a fixed rate, whether or not earlier ones
 * have been answered. Each prints one line: when it began, when it ended, the number of its server
 * (0 for none), and the error number (0 for none, ETIMEDOUT after PATIENCE_MS, ENODATA for an end
 * without an answer).
 *
 * The witness prints, at its end, the time and the client's port of each packet that would open a
 * connection to an address and port. It needs CAP_NET_RAW. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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

enum { MESSAGE = 64, BACKLOG = 4096, EVENTS = 256, MOST_ATTEMPTS = 1000000 };

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static int must(int result, const char *what) {
    if (result < 0)
        die("%s: %s", what, strerror(errno));
    return result;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void watch(int epoll, int operation, int fd, uint32_t events, void *of) {
    struct epoll_event event = {.events = events, .data.ptr = of};
    must(epoll_ctl(epoll, operation, fd, &event), "epoll_ctl");
}

static struct sockaddr_in at(const char *address, uint16_t port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(address)};
}

static void ready(void) {
    puts("ready");
    fflush(stdout);
}

/* ---- the server ---- */

static volatile sig_atomic_t vanishes, hangs;

static void told(int signal) {
    if (signal == SIGUSR1)
        vanishes = 1;
    else
        hangs = 1;
}

static int listen_on(const char *address, uint16_t port) {
    struct sockaddr_in name = at(address, port);
    int on = 1, fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
    must(bind(fd, (struct sockaddr *)&name, sizeof name), "bind");
    must(listen(fd, BACKLOG), "listen");
    return fd;
}

static void drop_all(int listener) {
    struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {.len = 1, .filter = nothing};
    must(setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), "SO_ATTACH_FILTER");
}

static void answer(int fd, const char *pong) {
    char received[4096];
    ssize_t n = recv(fd, received, sizeof received, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(fd);
        return;
    }
    if (hangs)
        return;
    int asked = n >= 4 && memcmp(received, "PING", 4) == 0;
    (void)!send(fd, asked ? pong : received, asked ? strlen(pong) : (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void server(const char *address, uint16_t port, uint16_t check_port, unsigned number) {
    char pong[32];
    snprintf(pong, sizeof pong, "PONG %u\n", number);
    int epoll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    int listeners[2] = {listen_on(address, port), listen_on(address, check_port)};
    /* An event carries its descriptor. */
    for (int i = 0; i < 2; i++)
        watch(epoll, EPOLL_CTL_ADD, listeners[i], EPOLLIN, (void *)(intptr_t)listeners[i]);
    watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, (void *)(intptr_t)STDIN_FILENO);
    signal(SIGUSR1, told);
    signal(SIGUSR2, told);
    ready();

    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (vanishes == 1) {
            drop_all(listeners[0]);
            drop_all(listeners[1]);
            vanishes = 2;
        }
        for (int i = 0; i < n; i++) {
            int fd = (int)(intptr_t)events[i].data.ptr;
            if (fd == STDIN_FILENO)
                return;
            if (fd != listeners[0] && fd != listeners[1]) {
                answer(fd, pong);
                continue;
            }
            int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (accepted >= 0)
                watch(epoll, EPOLL_CTL_ADD, accepted, EPOLLIN, (void *)(intptr_t)accepted);
        }
    }
}

/* ---- the clients ---- */

struct client {
    int fd, error;
    unsigned server;
    int sent;
    uint64_t began, ended;
};

static void end(struct client *client, int error, unsigned server) {
    client->ended = now();
    client->error = error;
    client->server = server;
    close(client->fd);
}

static void begin(int epoll, struct client *client, uint16_t port) {
    struct sockaddr_in name = at("127.0.0.1", port);
    client->began = now();
    client->fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    if (connect(client->fd, (struct sockaddr *)&name, sizeof name) < 0 && errno != EINPROGRESS)
        end(client, errno, 0);
    else
        watch(epoll, EPOLL_CTL_ADD, client->fd, EPOLLOUT, client);
}

static void go_on(int epoll, struct client *client) {
    if (!client->sent) {
        char message[MESSAGE] = "PING";
        if (send(client->fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message) {
            end(client, errno, 0);
            return;
        }
        client->sent = 1;
        watch(epoll, EPOLL_CTL_MOD, client->fd, EPOLLIN, client);
        return;
    }
    char answer[MESSAGE + 1] = "";
    ssize_t n = recv(client->fd, answer, MESSAGE, 0);
    unsigned server;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        end(client, errno, 0);
    else if (n == 0)
        end(client, ENODATA, 0);
    else if (sscanf(answer, "PONG %u", &server) == 1)
        end(client, 0, server);
    else
        end(client, EBADMSG, 0);
}

static void clients(uint16_t port, uint64_t rate, size_t count, uint64_t patience_ns) {
    struct client *all = calloc(count, sizeof *all);
    if (!all)
        die("no memory");
    int epoll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    ready();
    if (getchar() == EOF)
        return;

    uint64_t start = now();
    size_t begun = 0, oldest = 0;
    struct epoll_event events[EVENTS];
    while (oldest < count) {
        for (; begun < count && now() >= start + begun * 1000000000u / rate; begun++)
            begin(epoll, &all[begun], port);
        /* All have the same patience, so the one that began first loses it first. */
        for (; oldest < begun && (all[oldest].ended || now() > all[oldest].began + patience_ns); oldest++)
            if (!all[oldest].ended)
                end(&all[oldest], ETIMEDOUT, 0);
        int n = epoll_wait(epoll, events, EVENTS, begun < count ? 1 : 10);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (!client->ended)
                go_on(epoll, client);
        }
    }
    for (size_t i = 0; i < count; i++)
        printf("%" PRIu64 " %" PRIu64 " %u %d\n", all[i].began, all[i].ended, all[i].server, all[i].error);
}

/* ---- the witness ---- */

static void attempts(const char *address, uint16_t port) {
    /* Offsets are those of an IP header without options; the program sees no link layer. */
    struct sock_filter opening[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9), /* protocol */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 8),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16), /* destination */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(inet_addr(address)), 0, 6),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 22), /* port */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 4),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 33), /* flags */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1), /* SYN without ACK */
        BPF_STMT(BPF_RET | BPF_K, 64),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof opening / sizeof *opening, .filter = opening};
    int size = 8 << 20, fd = must(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "a packet socket");
    must(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), "SO_ATTACH_FILTER");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct sockaddr_ll any = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    must(bind(fd, (struct sockaddr *)&any, sizeof any), "bind");
    ready();

    /* Printing may block, and the time is that of reading the packet. */
    static struct {
        uint64_t time;
        unsigned port;
    } seen[MOST_ATTEMPTS];
    size_t count = 0;
    struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    while (poll(polled, 2, -1) >= 0) {
        unsigned char packet[64];
        struct sockaddr_ll from;
        socklen_t length = sizeof from;
        if (polled[0].revents & POLLIN) {
            ssize_t n = recvfrom(fd, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
            /* The loopback interface shows a packet twice: on its way out and in. */
            if (n < 24 || from.sll_pkttype != PACKET_OUTGOING)
                continue;
            if (count == MOST_ATTEMPTS)
                die("too many attempts");
            seen[count].time = now();
            seen[count++].port = (unsigned)packet[20] << 8 | packet[21];
        } else if (polled[1].revents) {
            break;
        }
    }
    for (size_t i = 0; i < count; i++)
        printf("%" PRIu64 " %u\n", seen[i].time, seen[i].port);
}

int main(int count, char **words) {
    uint64_t numbers[8] = {0};
    for (int i = 0; i < count && i < 8; i++)
        numbers[i] = strtoull(words[i], NULL, 10);
    if (count < 5)
        die("usage: see the head of comparison/arrivals.c");
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
    files.rlim_cur = files.rlim_max;
    must(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm((unsigned)numbers[1]);

    const char *mode = words[2];
    if (strcmp(mode, "server") == 0 && count == 7)
        server(words[3], (uint16_t)numbers[4], (uint16_t)numbers[5], (unsigned)numbers[6]);
    else if (strcmp(mode, "clients") == 0 && count == 7)
        clients((uint16_t)numbers[3], numbers[4], numbers[5], numbers[6] * 1000000u);
    else if (strcmp(mode, "attempts") == 0 && count == 5)
        attempts(words[3], (uint16_t)numbers[4]);
    else
        die("usage: see the head of comparison/arrivals.c");
    return 0;
}
