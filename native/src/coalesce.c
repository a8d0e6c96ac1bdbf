/* coalesce.c - frames for the bridge, joined into super-frames where that changes nothing.
 *
 * The rules are those of the kernel's own GRO: one flow, consecutive TCP sequence numbers, equal
 * acknowledgement, window and options, flags ACK only (PSH ends the group), equal segment length but
 * for a shorter last one, at most 65535 bytes of IP packet. UDP: equal datagram length, at most 64
 * (USO). Every checksum in a group was verified; the group then carries NEEDS_CSUM with the
 * pseudo-header sum. A frame alone goes as it came: the kernel verifies it like any other.
 * Order within a flow is kept: whatever can't join closes the flow's group.
 */
#include "bytes.h"
#include "internal.h"

#define FLOWS 64u
#define IP_MAX 65535u
#define UDP_GROUP_MAX 64u
#define TCP_GROUP_MAX (WN_IOV_PER_MSG - 2u) /* one write: virtio header and a piece per frame */
#define GROUP_MAX (WN_IOV_PER_MSG - 2u) /* one writev, with the virtio header in front */
#define TCP_ACK 0x10
#define TCP_PSH 0x08

typedef struct group {
    wn_frame *first;
    wn_frame *last;
    wn_view view;
    uint32_t segment;    /* payload bytes of the first frame */
    uint32_t ip_len;
    uint32_t count;
    uint32_t next_seq;
    uint16_t next_id;
    bool verified;       /* the first frame's checksum */
    bool closed;
} group;

static bool checksum_right(const wn_frame *frame, const wn_view *view)
{
    const uint8_t *ip = frame->data + view->l3_off;
    uint32_t l4_len = view->ip_len - (view->l4_off - view->l3_off);
    uint32_t sum = 0;
    if (view->ip_version == 4) {
        if (wn_csum_fold(wn_csum_add(ip, view->l4_off - view->l3_off, 0)) != 0xffff)
            return false;
        sum = wn_csum_pseudo4(ip + 12, view->l4_proto, l4_len);
    } else {
        sum = wn_csum_pseudo6(ip + 8, view->l4_proto, l4_len);
    }
    return wn_csum_fold(wn_csum_add(frame->data + view->l4_off, l4_len, sum)) == 0xffff;
}

static uint32_t payload_of(const wn_view *view)
{
    return view->ip_len - (view->payload_off - view->l3_off);
}

/* Could this frame be part of a group at all? */
static bool joinable(const wn_frame *frame, const wn_view *view)
{
    if (!(view->flags & WN_VIEW_L4) || (view->flags & (WN_VIEW_FRAGMENT | WN_VIEW_EXT)) ||
        view->vlan_tags || frame->flood || frame->relay || frame->cut || payload_of(view) == 0)
        return false;
    /* bytes behind the packet (Ethernet padding) would end up inside the group */
    if (view->l3_off + view->ip_len != frame->len)
        return false;
    const uint8_t *l4 = frame->data + view->l4_off;
    if (view->l4_proto == IPPROTO_TCP)
        return (l4[13] & (uint8_t)~TCP_PSH) == TCP_ACK && (l4[12] & 0x0f) == 0;
    return view->l4_proto == IPPROTO_UDP && wn_get16(l4 + 6) != 0 &&
           wn_get16(l4 + 4) == 8 + payload_of(view);
}

static bool same_ip(const group *g, const uint8_t *a, const uint8_t *b)
{
    if (g->view.ip_version == 6)
        return memcmp(a, b, 4) == 0 && memcmp(a + 6, b + 6, 34) == 0;
    if (memcmp(a, b, 2) != 0 || memcmp(a + 6, b + 6, 4) != 0 || memcmp(a + 12, b + 12, 8) != 0)
        return false;
    bool df = (a[6] & 0x40) != 0;
    return df || wn_get16(b + 4) == g->next_id;
}

static bool follows(const group *g, const wn_frame *frame, const wn_view *view)
{
    if (g->closed || view->ip_version != g->view.ip_version || view->l4_proto != g->view.l4_proto ||
        view->l4_off != g->view.l4_off || view->payload_off != g->view.payload_off)
        return false;
    const uint8_t *a = g->first->data;
    const uint8_t *b = frame->data;
    uint32_t len = payload_of(view);
    if (len > g->segment || g->ip_len + len > IP_MAX || g->count == GROUP_MAX || memcmp(a, b, WN_ETH_LEN) != 0 ||
        !same_ip(g, a + view->l3_off, b + view->l3_off))
        return false;
    a += view->l4_off;
    b += view->l4_off;
    if (memcmp(a, b, 4) != 0)
        return false;
    if (view->l4_proto == IPPROTO_UDP)
        return g->count < UDP_GROUP_MAX;
    uint32_t header = view->payload_off - view->l4_off;
    return g->count < TCP_GROUP_MAX && wn_get32(b + 4) == g->next_seq && memcmp(a + 8, b + 8, 5) == 0 &&
           memcmp(a + 14, b + 14, 2) == 0 && memcmp(a + 18, b + 18, header - 18) == 0;
}

/* Note what the next frame must look like, and whether there may be one. */
static void advance(group *g, const wn_frame *frame, const wn_view *view)
{
    uint32_t len = payload_of(view);
    const uint8_t *l4 = frame->data + view->l4_off;
    if (view->ip_version == 4)
        g->next_id = (uint16_t)(wn_get16(frame->data + view->l3_off + 4) + 1);
    if (len < g->segment)
        g->closed = true;
    if (view->l4_proto == IPPROTO_TCP) {
        g->next_seq = wn_get32(l4 + 4) + len;
        if (l4[13] & TCP_PSH)
            g->closed = true;
    }
}

static void open_group(group *g, wn_frame *frame, const wn_view *view)
{
    *g = (group){.first = frame,
                 .last = frame,
                 .view = *view,
                 .segment = payload_of(view),
                 .ip_len = view->ip_len,
                 .count = 1};
    frame->next = -1;
    advance(g, frame, view);
}

static bool join(wn_batch *batch, group *g, wn_frame *frame, const wn_view *view)
{
    if (!g->verified) {
        if (!checksum_right(g->first, &g->view)) {
            g->closed = true;
            return false;
        }
        g->verified = true;
    }
    if (!checksum_right(frame, view))
        return false;
    if (view->l4_proto == IPPROTO_TCP)
        g->first->data[g->view.l4_off + 13] |= frame->data[view->l4_off + 13] & TCP_PSH;
    g->last->next = (int32_t)(frame - batch->frames);
    g->last = frame;
    frame->next = -1;
    g->ip_len += payload_of(view);
    g->count++;
    advance(g, frame, view);
    return true;
}

static void put_iov(wn_batch *batch, void *base, size_t len)
{
    batch->iovs[batch->n_iovs++] = (struct iovec){.iov_base = base, .iov_len = len};
}

static wn_inject *new_inject(wn_batch *batch, uint32_t frames)
{
    wn_inject *inject = &batch->injects[batch->n_injects++];
    *inject = (wn_inject){.iov = batch->n_iovs, .frames = frames};
    put_iov(batch, &inject->vnet, WN_VNET_LEN);
    return inject;
}

bool wn_inject_frame(wn_batch *batch, const wn_frame *frame)
{
    if (batch->n_injects == WN_FRAMES || batch->n_iovs + 2 > WN_IOVS)
        return false;
    wn_inject *inject = new_inject(batch, 1);
    put_iov(batch, frame->data, frame->len);
    inject->n_iov = 2;
    inject->len = frame->len;
    return true;
}

void wn_inject_parts(wn_batch *batch, uint8_t *head, uint32_t head_len, const uint8_t *rest,
                     uint32_t rest_len)
{
    wn_inject *inject = new_inject(batch, 1);
    put_iov(batch, head, head_len);
    put_iov(batch, (uint8_t *)(uintptr_t)rest, rest_len);
    inject->n_iov = 3;
    inject->len = head_len + rest_len;
}

/* Headers of the first frame become those of the super-frame. */
static void write_headers(const group *g, wn_vnet *vnet)
{
    const wn_view *view = &g->view;
    uint8_t *ip = g->first->data + view->l3_off;
    uint8_t *l4 = g->first->data + view->l4_off;
    uint32_t l4_len = g->ip_len - (view->l4_off - view->l3_off);
    uint32_t pseudo = 0;
    if (view->ip_version == 4) {
        wn_put16(ip + 2, (uint16_t)g->ip_len);
        wn_ip4_set_csum(ip, view->l4_off - view->l3_off);
        pseudo = wn_csum_pseudo4(ip + 12, view->l4_proto, l4_len);
    } else {
        wn_put16(ip + 4, (uint16_t)(g->ip_len - 40));
        pseudo = wn_csum_pseudo6(ip + 8, view->l4_proto, l4_len);
    }
    bool tcp = view->l4_proto == IPPROTO_TCP;
    if (!tcp)
        wn_put16(l4 + 4, (uint16_t)l4_len);
    wn_put16(l4 + (tcp ? 16 : 6), wn_csum_fold(pseudo));
    vnet->flags = WN_VNET_NEEDS_CSUM;
    vnet->gso_type = !tcp ? WN_GSO_UDP_L4 : view->ip_version == 4 ? WN_GSO_TCPV4 : WN_GSO_TCPV6;
    vnet->hdr_len = (uint16_t)view->payload_off;
    vnet->gso_size = (uint16_t)g->segment;
    vnet->csum_start = (uint16_t)view->l4_off;
    vnet->csum_offset = tcp ? 16 : 6;
}

/* `others` groups follow. */
static void emit(wn_datapath *dp, wn_batch *batch, const group *g, uint32_t others)
{
    if (g->first->cut) {
        wn_inject_cut(dp, batch, g->first, others);
        return;
    }
    if (g->count == 1) {
        wn_inject_frame(batch, g->first);
        return;
    }
    wn_inject *inject = new_inject(batch, g->count);
    write_headers(g, &inject->vnet);
    put_iov(batch, g->first->data, g->first->len);
    inject->len = g->first->len;
    for (int32_t at = g->first->next; at >= 0; at = batch->frames[at].next) {
        wn_frame *frame = &batch->frames[at];
        put_iov(batch, frame->data + g->view.payload_off, frame->len - g->view.payload_off);
        inject->len += frame->len - g->view.payload_off;
    }
    inject->n_iov = batch->n_iovs - inject->iov;
    wn_count(dp, WN_C_COALESCED_FRAMES, g->count);
}

static uint32_t flow_of(const wn_frame *frame, const wn_view *view)
{
    uint32_t ports = wn_get32(frame->data + view->l4_off);
    uint32_t addrs = wn_get32(frame->data + view->l4_off - 4) ^ wn_get32(frame->data + view->l4_off - 8);
    return ((ports ^ addrs) * 0x9e3779b1u) >> 26; /* 0..FLOWS-1 */
}

int wn_coalesce(wn_datapath *dp, wn_batch *batch, int use_gso)
{
    static const uint16_t none = 0xffff;
    uint16_t flows[FLOWS];
    group groups[WN_FRAMES];
    uint32_t n_groups = 0;
    memset(flows, 0xff, sizeof flows);
    batch->n_injects = 0;
    batch->n_iovs = 0;
    batch->hdr_used = 0;
    for (uint32_t i = 0; i < batch->n_frames; i++) {
        wn_frame *frame = &batch->frames[i];
        wn_view view;
        if (!frame->deliver || wn_frame_parse(frame->data, frame->len, &view) != WN_OK)
            continue;
        group *open = NULL;
        uint32_t flow = FLOWS;
        if (use_gso && (view.flags & WN_VIEW_L4) && !(view.flags & WN_VIEW_EXT)) {
            flow = flow_of(frame, &view);
            if (flows[flow] != none)
                open = &groups[flows[flow]];
        } else if (use_gso && view.ip_version) {
            memset(flows, 0xff, sizeof flows); /* a fragment, or behind options: it may be of any flow, keep the order */
        }
        bool can = flow < FLOWS && joinable(frame, &view);
        if (can && open && follows(open, frame, &view) && join(batch, open, frame, &view))
            continue;
        open_group(&groups[n_groups], frame, &view);
        if (flow < FLOWS)
            flows[flow] = can ? (uint16_t)n_groups : none;
        n_groups++;
    }
    for (uint32_t i = 0; i < n_groups; i++)
        emit(dp, batch, &groups[i], n_groups - i - 1);
    return (int)batch->n_injects;
}
