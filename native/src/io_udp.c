/* io_udp.c - sleeve datagrams in and out, many per system call.
 *
 * Two sockets share the sleeve port (spec: sleeve 8.1): one sends with DF and never fragments, the
 * other without. They form a SO_REUSEPORT group whose classic-BPF program names member 0 for every
 * datagram, so that the first socket, the one without DF, receives everything and the second nothing.
 * Unlike a raw socket this keeps UDP GSO on both channels; unlike one socket whose IP_MTU_DISCOVER is
 * switched per send it needs no lock between the two directions.
 */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "internal.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#define BURST 64u
/* Above this average a full burst would only spoil the cache: 64 trains are 4 MiB. */
#define BULK_BYTES 8192u
#define BULK_VLEN 16u

static int one_socket(const struct sockaddr_in *at, int discover, int buffer_bytes)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) ||
        setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) ||
        bind(fd, (const struct sockaddr *)at, sizeof *at)) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    /* beyond net.core.[rw]mem_max where we may, up to it where we may not */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof buffer_bytes))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    return fd;
}

/* SO_REUSEPORT would let a second router of the same user in: ask without it first. */
static bool port_is_free(const struct sockaddr_in *at)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int failed = bind(fd, (const struct sockaddr *)at, sizeof *at);
    int err = errno;
    close(fd);
    errno = err;
    return failed == 0;
}

int wn_udp_open(uint32_t addr, uint16_t port, int buffer_bytes, int *fd_df, int *fd_frag, int *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = addr};
    struct sock_filter first_member[] = {{BPF_RET | BPF_K, 0, 0, 0}};
    struct sock_fprog program = {1, first_member};
    int one = 1;
    *fd_df = *fd_frag = -1;
    if (port_is_free(&at))
        *fd_frag = one_socket(&at, IP_PMTUDISC_DONT, buffer_bytes);
    if (*fd_frag >= 0 &&
        setsockopt(*fd_frag, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0 &&
        setsockopt(*fd_frag, IPPROTO_UDP, UDP_GRO, &one, sizeof one) == 0)
        *fd_df = one_socket(&at, IP_PMTUDISC_DO, buffer_bytes);
    *err = errno;
    if (*fd_df >= 0)
        return WN_OK;
    if (*fd_frag >= 0)
        close(*fd_frag);
    *fd_frag = -1;
    return WN_ERR_SYSCALL;
}

uint64_t wn_udp_drops(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len))
        return 0;
    return info[SK_MEMINFO_DROPS];
}

static uint32_t gro_size_of(struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size = 0;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            return size > 0 && size <= WN_FRAME_MAX ? (uint32_t)size : 0;
        }
    }
    return 0;
}

int wn_udp_recv(wn_datapath *dp, wn_batch *batch, int fd, uint32_t most)
{
    struct mmsghdr msgs[BURST];
    struct iovec iovs[BURST];
    struct sockaddr_in from[BURST];
    _Alignas(struct cmsghdr) uint8_t control[BURST][CMSG_SPACE(sizeof(int))];
    uint32_t vlen = most < batch->rx_vlen ? most : batch->rx_vlen;
    (void)dp;
    wn_batch_reset(batch);
    for (uint32_t i = 0; i < vlen; i++) {
        iovs[i] = (struct iovec){batch->arena + (size_t)i * WN_DGRAM_SLOT, WN_FRAME_MAX};
        msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                          .msg_namelen = sizeof from[i],
                                          .msg_iov = &iovs[i],
                                          .msg_iovlen = 1,
                                          .msg_control = control[i],
                                          .msg_controllen = sizeof control[i]};
    }
    int got = 0;
    do
        got = recvmmsg(fd, msgs, vlen, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        batch->err = errno;
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : WN_ERR_SYSCALL;
    }
    uint32_t bytes = 0;
    for (int i = 0; i < got; i++) {
        batch->dgrams[i] = (wn_dgram){.data = iovs[i].iov_base,
                                      .len = msgs[i].msg_len,
                                      .gso_size = gro_size_of(&msgs[i].msg_hdr),
                                      .addr = from[i].sin_addr.s_addr,
                                      .port = ntohs(from[i].sin_port)};
        bytes += msgs[i].msg_len;
    }
    batch->n_dgrams = (uint32_t)got;
    if ((uint32_t)got == batch->rx_vlen)
        batch->rx_vlen = bytes / (uint32_t)got > BULK_BYTES ? BULK_VLEN : BURST;
    return got;
}

static void refused(wn_datapath *dp, wn_batch *batch, const wn_msg *msg, int err)
{
    /* EINVAL: a GSO size above the path's MTU on kernels before 6.x */
    bool size = err == EMSGSIZE || (err == EINVAL && msg->datagrams > 1);
    wn_event event = {.kind = size ? WN_EVENT_PATH_MTU : WN_EVENT_SEND_ERROR,
                      .forwarder = msg->forwarder,
                      .addr = msg->to.sin_addr.s_addr,
                      .port = ntohs(msg->to.sin_port),
                      .frame_len = msg->gso_size,
                      .err = err};
    wn_count(dp, size ? WN_C_DROP_PATH_MTU : WN_C_DROP_SEND_ERROR, msg->frames);
    wn_batch_add_event(batch, &event);
}

static void account(wn_datapath *dp, const wn_msg *msgs, uint32_t n)
{
    uint64_t datagrams = 0;
    uint64_t frames = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        wn_forwarder *to = &dp->forwarders[msgs[i].forwarder];
        wn_add64(&to->tx_frames, msgs[i].frames);
        wn_add64(&to->tx_datagrams, msgs[i].datagrams);
        wn_add64(&to->tx_bytes, msgs[i].len);
        datagrams += msgs[i].datagrams;
        frames += msgs[i].frames;
        bytes += msgs[i].len;
    }
    wn_count(dp, WN_C_SENT_DATAGRAMS, datagrams);
    wn_count(dp, WN_C_SENT_FRAMES, frames);
    wn_count(dp, WN_C_SENT_BYTES, bytes);
}

/* Send msgs[0..n), all of one channel. How many went before an error; -1: the first one failed. */
static int send_run(const wn_batch *batch, wn_msg *msgs, uint32_t n, int fd)
{
    struct mmsghdr out[BURST];
    _Alignas(struct cmsghdr) uint8_t control[BURST][CMSG_SPACE(sizeof(uint16_t))];
    for (uint32_t i = 0; i < n; i++) {
        wn_msg *msg = &msgs[i];
        out[i].msg_hdr = (struct msghdr){.msg_name = &msg->to,
                                         .msg_namelen = sizeof msg->to,
                                         .msg_iov = batch->iovs + msg->iov,
                                         .msg_iovlen = msg->n_iov};
        if (msg->datagrams < 2)
            continue;
        out[i].msg_hdr.msg_control = control[i];
        out[i].msg_hdr.msg_controllen = sizeof control[i];
        struct cmsghdr *c = CMSG_FIRSTHDR(&out[i].msg_hdr);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        memcpy(CMSG_DATA(c), &msg->gso_size, sizeof msg->gso_size);
    }
    int sent = 0;
    do
        sent = sendmmsg(fd, out, n, MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* Packed for an encrypted neighbour and never sealed: some way to here has left the stage out. */
static bool unsealed(const wn_msg *msg) { return msg->key && !msg->sealed; }

int wn_udp_send(wn_datapath *dp, wn_batch *batch, int fd_df, int fd_frag)
{
    while (batch->next_msg < batch->n_msgs) {
        wn_msg *first = &batch->msgs[batch->next_msg];
        uint32_t n = 1;
        if (unsealed(first)) {
            wn_count(dp, WN_C_DROP_KEY_CHANGED, first->frames);
            batch->next_msg++;
            continue;
        }
        while (n < BURST && batch->next_msg + n < batch->n_msgs && first[n].df == first->df && !unsealed(&first[n]))
            n++;
        int sent = send_run(batch, first, n, first->df ? fd_df : fd_frag);
        if (sent >= 0) {
            account(dp, first, (uint32_t)sent);
            batch->next_msg += (uint32_t)sent;
            continue;
        }
        batch->err = errno;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return WN_ERR_AGAIN;
        refused(dp, batch, first, errno);
        batch->next_msg++;
    }
    return WN_OK;
}
