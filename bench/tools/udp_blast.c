/* udp_blast.c - small-packet load: batches of equal UDP datagrams by sendmmsg, counted by recvmmsg.
 *
 *   udp_blast send ADDRESS PORT SECONDS PAYLOAD_BYTES BATCH
 *   udp_blast recv PORT SECONDS
 *
 * No segmentation offload on either side: every datagram is one skb, which is what this measures.
 * The receiver counts for SECONDS from its first datagram on, and gives up if none came within 5 s.
 * Both print one JSON object: datagrams, bytes, seconds, per_second (and blocked for the sender:
 * sendmmsg calls that took fewer datagrams than offered).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BATCH_MAX 1024
#define PAYLOAD_MAX 65507
#define BUFFER_BYTES (8 * 1024 * 1024)

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    fprintf(stderr, "udp_blast: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void set_buffer(int fd, int forced, int plain) {
    int size = BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) != 0 &&
        setsockopt(fd, SOL_SOCKET, plain, &size, sizeof size) != 0)
        die("socket buffer");
}

static void print_result(uint64_t datagrams, uint64_t bytes, double seconds, uint64_t blocked) {
    printf("{\"datagrams\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"blocked\": %llu}\n",
           (unsigned long long)datagrams, (unsigned long long)bytes, seconds,
           seconds > 0 ? (double)datagrams / seconds : 0.0, (unsigned long long)blocked);
}

static int run_send(const char *address, int port, double seconds, size_t payload, unsigned batch) {
    static struct mmsghdr messages[BATCH_MAX];
    static uint8_t data[PAYLOAD_MAX];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct iovec vector = {.iov_base = data, .iov_len = payload};
    uint64_t sent = 0, blocked = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1) die("socket");
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
    for (unsigned i = 0; i < batch; i++) {
        messages[i].msg_hdr.msg_iov = &vector;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    double start = now_s(), end = start + seconds, now = start;
    while (now < end) {
        int n = sendmmsg(fd, messages, batch, 0);
        if (n < 0) {
            /* ECONNREFUSED reports an earlier datagram; ENOBUFS passes */
            if (errno != ECONNREFUSED && errno != ENOBUFS && errno != EINTR) die("sendmmsg");
            blocked++;
        } else {
            sent += (uint64_t)n;
            blocked += (unsigned)n < batch;
        }
        now = now_s();
    }
    print_result(sent, sent * payload, now - start, blocked);
    return 0;
}

static int run_recv(int port, double seconds) {
    static struct mmsghdr messages[BATCH_MAX];
    static struct iovec vectors[BATCH_MAX];
    static uint8_t data[BATCH_MAX][2048];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_usec = 100000};
    uint64_t received = 0, bytes = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) die("socket");
    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) die("timeout");
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) die("bind");
    for (unsigned i = 0; i < BATCH_MAX; i++) {
        vectors[i] = (struct iovec){.iov_base = data[i], .iov_len = sizeof data[i]};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    fprintf(stderr, "ready\n");
    double give_up = now_s() + 5.0, start = 0, end = 0, last = 0;
    for (;;) {
        int n = recvmmsg(fd, messages, BATCH_MAX, MSG_WAITFORONE, NULL);
        double now = now_s();
        if (n < 0 && errno != EAGAIN && errno != EINTR) die("recvmmsg");
        if (n > 0 && end == 0) {
            start = now;
            end = now + seconds;
        }
        if ((end != 0 && now >= end) || (end == 0 && now >= give_up)) break;
        if (n > 0) {
            received += (uint64_t)n;
            for (int i = 0; i < n; i++) bytes += messages[i].msg_len;
            last = now;
        }
    }
    print_result(received, bytes, last - start, 0);
    return received == 0;
}

int main(int argc, char **argv) {
    if (argc == 7 && strcmp(argv[1], "send") == 0) {
        long payload = atol(argv[5]), batch = atol(argv[6]);
        if (payload >= 0 && payload <= PAYLOAD_MAX && batch >= 1 && batch <= BATCH_MAX)
            return run_send(argv[2], atoi(argv[3]), atof(argv[4]), (size_t)payload, (unsigned)batch);
    } else if (argc == 4 && strcmp(argv[1], "recv") == 0) {
        return run_recv(atoi(argv[2]), atof(argv[3]));
    }
    fprintf(stderr, "usage: udp_blast send ADDRESS PORT SECONDS PAYLOAD_BYTES BATCH\n"
                    "       udp_blast recv PORT SECONDS\n");
    return 2;
}
