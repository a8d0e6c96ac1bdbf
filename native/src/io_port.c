/* io_port.c - frames in and out of the kernel: a TAP, or a packet socket, with virtio headers.
 *
 * A TAP gives one frame per read; a packet socket many per recvmmsg, and its VLAN tags beside the
 * frame (PACKET_AUXDATA), which go back in here.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/if_packet.h>
#include <unistd.h>

#include "bytes.h"
#include "internal.h"

#define PACKET_BURST 16u
#define VLAN_LEN 4u

/* A super-frame with all headers; the kernel never hands over more. */
#define READ_MAX (WN_FRAME_MAX + 64u)

static uint8_t *next_slot(const wn_batch *batch, uint32_t used) { return batch->arena + used + WN_HEADROOM; }

static uint32_t after(uint32_t used, uint32_t len) { return (used + WN_HEADROOM + len + 63u) & ~63u; }

static bool room_for(const wn_batch *batch, uint32_t used)
{
    return used < WN_CAPTURE_BUDGET && used + WN_HEADROOM + READ_MAX <= WN_ANSWERS_AT &&
           batch->n_frames < WN_FRAMES / 2;
}

static int read_tap(wn_batch *batch, int fd, uint32_t most)
{
    while (batch->n_frames < most && room_for(batch, batch->arena_used)) {
        uint8_t *frame = next_slot(batch, batch->arena_used);
        ssize_t got = read(fd, frame - WN_VNET_LEN, WN_VNET_LEN + READ_MAX);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (got < 0) {
            batch->err = errno;
            return batch->n_frames ? (int)batch->n_frames : WN_ERR_SYSCALL;
        }
        if (got < (ssize_t)WN_VNET_LEN)
            continue;
        wn_frame *to = wn_batch_add_frame(batch);
        to->data = frame;
        to->len = (uint32_t)got - WN_VNET_LEN;
        to->headroom = 1;
        memcpy(&to->vnet, frame - WN_VNET_LEN, WN_VNET_LEN);
        batch->arena_used = after(batch->arena_used, to->len);
    }
    return (int)batch->n_frames;
}

/* Put back the 802.1Q tag that the kernel took out on receive; the frame moves into its headroom. */
static void restore_tag(wn_frame *frame, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        struct tpacket_auxdata aux;
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA ||
            c->cmsg_len < CMSG_LEN(sizeof aux))
            continue;
        memcpy(&aux, CMSG_DATA(c), sizeof aux);
        if (!(aux.tp_status & TP_STATUS_VLAN_VALID) || frame->len < WN_ETH_LEN)
            return;
        uint16_t tpid = aux.tp_status & TP_STATUS_VLAN_TPID_VALID ? aux.tp_vlan_tpid : 0x8100;
        frame->data -= VLAN_LEN;
        memmove(frame->data, frame->data + VLAN_LEN, 2 * WN_MAC_LEN);
        wn_put16(frame->data + 2 * WN_MAC_LEN, tpid);
        wn_put16(frame->data + 2 * WN_MAC_LEN + 2, aux.tp_vlan_tci);
        frame->len += VLAN_LEN;
        if (frame->vnet.flags & WN_VNET_NEEDS_CSUM)
            frame->vnet.csum_start = (uint16_t)(frame->vnet.csum_start + VLAN_LEN);
        return;
    }
}

static int read_packet(wn_batch *batch, int fd)
{
    struct mmsghdr msgs[PACKET_BURST];
    struct iovec iovs[PACKET_BURST];
    _Alignas(struct cmsghdr) uint8_t control[PACKET_BURST][CMSG_SPACE(sizeof(struct tpacket_auxdata))];
    while (room_for(batch, batch->arena_used)) {
        uint32_t n = 0;
        uint32_t used = batch->arena_used;
        for (; n < PACKET_BURST && room_for(batch, used); n++) {
            iovs[n] = (struct iovec){next_slot(batch, used) - WN_VNET_LEN, WN_VNET_LEN + READ_MAX};
            msgs[n].msg_hdr = (struct msghdr){.msg_iov = &iovs[n],
                                              .msg_iovlen = 1,
                                              .msg_control = control[n],
                                              .msg_controllen = sizeof control[n]};
            used = after(used, READ_MAX);
        }
        int got = recvmmsg(fd, msgs, n, MSG_DONTWAIT, NULL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (got < 0) {
            batch->err = errno;
            return batch->n_frames ? (int)batch->n_frames : WN_ERR_SYSCALL;
        }
        for (int i = 0; i < got; i++) {
            uint8_t *start = iovs[i].iov_base;
            if (msgs[i].msg_len < WN_VNET_LEN)
                continue;
            wn_frame *to = wn_batch_add_frame(batch);
            to->data = start + WN_VNET_LEN;
            to->len = msgs[i].msg_len - WN_VNET_LEN;
            to->headroom = 1;
            memcpy(&to->vnet, start, WN_VNET_LEN);
            restore_tag(to, &msgs[i].msg_hdr);
            batch->arena_used = after((uint32_t)(start - batch->arena), WN_VNET_LEN + to->len);
        }
        if ((uint32_t)got < n)
            break;
    }
    return (int)batch->n_frames;
}

/* A packet socket tells in one call how many there are: `most` is for the TAP. */
int wn_port_read(wn_datapath *dp, wn_batch *batch, int fd, int kind, uint32_t most)
{
    (void)dp;
    wn_batch_reset(batch);
    return kind == WN_PORT_PACKET ? read_packet(batch, fd) : read_tap(batch, fd, most);
}

int wn_port_write(wn_datapath *dp, wn_batch *batch, int fd)
{
    uint64_t frames = 0;
    uint64_t bytes = 0;
    int written = 0;
    for (uint32_t i = 0; i < batch->n_injects; i++) {
        const wn_inject *inject = &batch->injects[i];
        ssize_t put = 0;
        do
            put = writev(fd, batch->iovs + inject->iov, (int)inject->n_iov);
        while (put < 0 && errno == EINTR);
        if (put >= 0) {
            written++;
            frames += inject->frames;
            bytes += inject->len;
            continue;
        }
        batch->err = errno;
        int reason = WN_C_DROP_PORT_DOWN;
        if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
            reason = WN_C_DROP_PORT_BUSY;
        else if (errno == EINVAL || errno == EMSGSIZE)
            reason = WN_C_DROP_FRAME_TOO_LONG;
        wn_count(dp, reason, inject->frames);
    }
    wn_count(dp, WN_C_DELIVERED_FRAMES, frames);
    wn_count(dp, WN_C_DELIVERED_BYTES, bytes);
    batch->n_injects = 0;
    return written;
}
