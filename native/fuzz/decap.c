/* Arbitrary datagrams through decap, coalesce and relay. What coalesce joins is taken apart again
 * and must be, per flow and in order, what it does not join when told not to; nothing with a wrong
 * checksum may come out with a right one. With a bridge that takes less than what comes, no IP packet
 * that is longer may come out, but for fragments' sake nothing is compared then.
 * Input: operations, see add_record() */
#include "bytes.h"
#include "internal.h"
#include "node.h"

#define COMPARE_MAX 300u
#define UIO_LIMIT 1024u

typedef struct item {
    uint8_t *data;
    size_t size;
    wn_view view;
    uint8_t ip_right, l4_right;
    int matched;
} item;

typedef struct list {
    item *items;
    size_t count;
} list;

typedef struct builder {
    source from;
    uint8_t datagram[9000];
    size_t size;
    uint32_t next_seq[8];
    uint16_t next_id;
} builder;

static void checksums(const uint8_t *frame, const wn_view *view, uint8_t *ip_right, uint8_t *l4_right)
{
    const uint8_t *ip = frame + view->l3_off;
    const size_t l4_len = view->ip_len - (view->l4_off - view->l3_off);
    const uint8_t *l4 = frame + view->l4_off;
    if (view->ip_version == 4) {
        *ip_right = slow_sum(ip, view->l4_off - view->l3_off, 0) == 0xffff;
        *l4_right = slow_l4_sum(ip + 12, 8, view->l4_proto, l4, l4_len) == 0xffff;
    } else {
        *ip_right = 1;
        *l4_right = slow_l4_sum(ip + 8, 32, view->l4_proto, l4, l4_len) == 0xffff;
    }
}

/* Append a frame in canonical form: without what joining may change (checksum fields, which are judged
 * instead; the ID of DF packets; total length 0 spelled out). */
static void add_item(list *to, const uint8_t *frame, size_t size)
{
    if (to->count++ >= COMPARE_MAX)
        return; /* counted, not compared */
    item *it = &to->items[to->count - 1];
    *it = (item){.data = exact_copy(frame, size), .size = size};
    CHECK(wn_frame_parse(frame, size, &it->view) == WN_OK);
    if (!(it->view.flags & WN_VIEW_L4))
        return;
    checksums(frame, &it->view, &it->ip_right, &it->l4_right);
    uint8_t *ip = it->data + it->view.l3_off;
    uint8_t *field = it->data + it->view.l4_off + (it->view.l4_proto == 6 ? 16 : 6);
    if (it->l4_right && get16(field) != 0)
        put16(field, 0xffff);
    if (it->view.ip_version == 4) {
        if (get16(ip + 2) == 0)
            put16(ip + 2, it->view.ip_len);
        if (ip[6] & 0x40)
            put16(ip + 4, 0);
        if (it->ip_right)
            put16(ip + 10, 0);
    }
}

/* Take a super-frame apart by its virtio header, as the kernel would. */
static void expand(list *to, const uint8_t *frame, size_t size, const wn_vnet *vnet)
{
    static uint8_t piece[WN_FRAME_MAX + 64];
    wn_view view;
    CHECK(wn_frame_parse(frame, size, &view) == WN_OK && (view.flags & WN_VIEW_L4));
    CHECK(vnet->flags == 1 && vnet->gso_size > 0 && view.l3_off + view.ip_len == size);
    CHECK(vnet->hdr_len == view.payload_off && vnet->csum_start == view.l4_off);
    const int tcp = view.l4_proto == 6;
    CHECK(vnet->csum_offset == (tcp ? 16 : 6));
    CHECK(vnet->gso_type == (!tcp ? 5 : view.ip_version == 4 ? 1 : 4));
    const uint8_t *ip = frame + view.l3_off;
    const size_t addrs = view.ip_version == 4 ? 8 : 32;
    const uint8_t *addr = view.ip_version == 4 ? ip + 12 : ip + 8;
    CHECK(view.ip_version == 6 || slow_sum(ip, view.l4_off - view.l3_off, 0) == 0xffff);
    const uint32_t pseudo = slow_sum(addr, addrs, view.l4_proto + (uint32_t)(size - view.l4_off));
    CHECK(get16(frame + view.l4_off + vnet->csum_offset) == pseudo);
    CHECK(size - view.payload_off > vnet->gso_size);
    uint32_t index = 0;
    for (size_t at = view.payload_off; at < size; at += vnet->gso_size, index++) {
        const size_t left = size - at;
        const size_t take = left < vnet->gso_size ? left : vnet->gso_size;
        const size_t l4_len = view.payload_off - view.l4_off + take;
        memcpy(piece, frame, view.payload_off);
        memcpy(piece + view.payload_off, frame + at, take);
        uint8_t *l3 = piece + view.l3_off;
        uint8_t *l4 = piece + view.l4_off;
        if (view.ip_version == 4) {
            put16(l3 + 2, (unsigned)(l4 - l3) + (unsigned)l4_len);
            put16(l3 + 4, get16(l3 + 4) + index);
            put16(l3 + 10, 0);
            put16(l3 + 10, slow_sum(l3, (size_t)(l4 - l3), 0) ^ 0xffff);
        } else {
            put16(l3 + 4, (unsigned)l4_len);
        }
        if (tcp) {
            const uint32_t seq = wn_get32(l4 + 4) + index * vnet->gso_size;
            wn_put32(l4 + 4, seq);
            if (left > vnet->gso_size)
                l4[13] &= (uint8_t)~0x09;
        } else {
            put16(l4 + 4, (unsigned)l4_len);
        }
        put16(l4 + vnet->csum_offset, 0);
        const uint32_t sum = slow_l4_sum(view.ip_version == 4 ? l3 + 12 : l3 + 8, addrs, view.l4_proto, l4, l4_len);
        put16(l4 + vnet->csum_offset, sum == 0xffff ? 0xffff : sum ^ 0xffff);
        add_item(to, piece, view.payload_off + take);
    }
    CHECK(tcp || index <= 64);
}

/* No IP packet without tags is longer than the bridge takes. */
static void check_narrow(const uint8_t *frame, size_t size, uint32_t port_mtu)
{
    wn_view view;
    if (!port_mtu)
        return;
    CHECK(wn_frame_parse(frame, size, &view) == WN_OK);
    if ((view.flags & WN_VIEW_IPV4) && !view.vlan_tags && get16(frame + view.l3_off + 2) <= view.ip_len)
        CHECK(view.ip_len <= port_mtu);
}

static void collect(list *to, const wn_batch *batch, uint32_t port_mtu)
{
    static uint8_t frame[WN_FRAME_MAX + 64];
    for (int i = 0; i < wn_batch_injects(batch); i++) {
        wn_vnet vnet;
        const int size = wn_batch_inject_copy(batch, i, (uint8_t *)&vnet, frame, sizeof frame);
        CHECK(size >= 14 && batch->injects[i].n_iov <= UIO_LIMIT);
        CHECK(batch->injects[i].len == (uint32_t)size);
        if (vnet.gso_type == 0) {
            CHECK(vnet.flags == 0 && vnet.gso_size == 0);
            check_narrow(frame, (size_t)size, port_mtu);
            add_item(to, frame, (size_t)size);
        } else {
            expand(to, frame, (size_t)size, &vnet);
        }
    }
}

static int equal(const item *a, const item *b)
{
    return a->size == b->size && a->ip_right == b->ip_right && a->l4_right == b->l4_right &&
           memcmp(a->data, b->data, a->size) == 0;
}

/* Must b stay behind a? Same addresses, and the same ports unless one of the two shows none. */
static int ordered(const item *a, const item *b)
{
    if (a->view.ip_version == 0 || a->view.ip_version != b->view.ip_version || a->view.l3_off != b->view.l3_off)
        return 0;
    const size_t at = a->view.l3_off + (a->view.ip_version == 4 ? 12u : 8u);
    if (memcmp(a->data + at, b->data + at, a->view.ip_version == 4 ? 8 : 32) != 0)
        return 0;
    if (!(a->view.flags & WN_VIEW_L4) || !(b->view.flags & WN_VIEW_L4))
        return 1;
    return a->view.l4_proto == b->view.l4_proto &&
           memcmp(a->data + a->view.l4_off, b->data + b->view.l4_off, 4) == 0;
}

static void compare(list *plain, const list *joined)
{
    CHECK(plain->count == joined->count);
    if (plain->count > COMPARE_MAX)
        return;
    for (size_t i = 0; i < joined->count; i++) {
        size_t at = 0;
        while (at < plain->count && (plain->items[at].matched || !equal(&plain->items[at], &joined->items[i])))
            at++;
        CHECK(at < plain->count); /* coalesce made a frame that never came */
        for (size_t before = 0; before < at; before++)
            CHECK(plain->items[before].matched || !ordered(&plain->items[before], &plain->items[at]));
        plain->items[at].matched = 1;
    }
}

static void empty(list *l)
{
    for (size_t i = 0; i < l->count && i < COMPARE_MAX; i++)
        free(l->items[i].data);
    l->count = 0;
}

/* One flow's next segment, continuing it unless the choices say otherwise. */
static size_t build_segment(builder *b, uint8_t *out)
{
    static const uint16_t sizes[] = {1, 2, 100, 100, 1400, 536, 0, 33};
    const uint8_t which = take8(&b->from);
    const uint8_t how = take8(&b->from);
    const unsigned flow = which & 7;
    shape s = {.version = flow & 1 ? 6 : 4,
               .proto = flow & 2 ? 17 : 6,
               .options = flow == 4 ? 3 : 0,
               .tags = which >= 0xf0,
               .tcp_flags = 0x10,
               .ip_word = which & 0x20 ? 0 : 0x4000,
               .id = b->next_id++,
               .port = (uint16_t)(1000 + flow),
               .seq = b->next_seq[flow],
               .payload = sizes[which >> 3 & 3 ? which >> 3 & 3 : how & 7],
               .src = 2,
               .dst = which & 0x40 ? 1 : 0x77};
    if (which >> 4 == 8)
        s.ip_word = 0x2000; /* a first fragment: same flow, no L4 to see */
    if (how & 0x08)
        s.tcp_flags |= 0x08;
    if (how & 0x10)
        s.tcp_flags = take8(&b->from);
    if (how & 0x20)
        s.seq += take8(&b->from);
    if (how & 0x40)
        s.id = take16(&b->from);
    const size_t size = build_frame(out, &s);
    b->next_seq[flow] = s.seq + s.payload;
    if (how & 0x80)
        out[take16(&b->from) % size] ^= take8(&b->from);
    return size;
}

static void flush(builder *b, wn_batch *one, wn_batch *two, uint16_t gso_size, unsigned copies)
{
    for (unsigned i = 0; i < copies; i++) {
        const int done = wn_batch_put_datagram(one, b->datagram, b->size, gso_size, 1, 1);
        CHECK(done == wn_batch_put_datagram(two, b->datagram, b->size, gso_size, 1, 1));
        CHECK(done == WN_OK || done == WN_ERR_FULL);
    }
    memcpy(b->datagram, NAMES[PEER_B], 6);
    b->size = 6;
}

/* The next operation: a record with a built or raw frame, raw bytes, or the end of a datagram. */
static void add_record(builder *b, wn_batch *one, wn_batch *two)
{
    const uint8_t op = take8(&b->from);
    uint8_t *at = b->datagram + b->size;
    size_t got = 0;
    if (op >= 0xf8 || b->size > 7000) {
        flush(b, one, two, op & 1 ? take16(&b->from) : 0, op & 2 ? 1 + take8(&b->from) % 64 : 1);
        return;
    }
    if (op == 0xf7) { /* many records of the smallest frame: fills the frame table */
        for (unsigned n = take8(&b->from); n > 0 && b->size < 7000; n--) {
            uint8_t *record = b->datagram + b->size;
            memset(record, 0x0a, 28);
            wn_sleeve_put_record(record, NAMES[PEER_B], NAMES[PEER_A], 14);
            b->size += 28;
        }
        return;
    }
    if (op >= 0xf0) {
        const uint8_t *raw = take_bytes(&b->from, take8(&b->from), &got);
        memcpy(at, raw, got);
        b->size += got;
        return;
    }
    memcpy(at, NAMES[op & 0x80 ? take8(&b->from) % (PEERS + 1) : PEER_B], 6);
    memcpy(at + 6, NAMES[op & 0x40 ? take8(&b->from) % (PEERS + 1) : PEER_A], 6);
    if (op & 0x20) {
        const uint8_t *raw = take_bytes(&b->from, take8(&b->from), &got);
        memcpy(at + 14, raw, got);
    } else {
        got = build_segment(b, at + 14);
    }
    put16(at + 12, (unsigned)got);
    b->size += 14 + got;
}

/* All frames that the batch has for the bridge, relaying what is to be relayed. */
static void drain(wn_datapath *dp, wn_batch *batch, int use_gso, list *to, uint32_t port_mtu)
{
    int count = 0;
    do {
        count = wn_decap(dp, batch, NOW_S);
        CHECK(count >= 0);
        CHECK(wn_coalesce(dp, batch, use_gso) == wn_batch_injects(batch));
        collect(to, batch, port_mtu);
        int more = 0;
        do {
            more = wn_encap(dp, batch, NOW_S);
            CHECK(more >= 0);
            check_messages(dp, batch, NULL, NULL);
        } while (more & WN_MORE);
    } while (count & WN_MORE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static wn_batch *one, *two;
    static item plain_items[COMPARE_MAX], joined_items[COMPARE_MAX];
    static builder b;
    list plain = {plain_items, 0};
    list joined = {joined_items, 0};
    if (size > 4096)
        return 0;
    if (!one) {
        one = wn_batch_new();
        two = wn_batch_new();
        CHECK(one && two);
    }
    wn_batch_reset(one);
    wn_batch_reset(two);
    memset(&b, 0, sizeof b);
    b.from = (source){data, size};
    memcpy(b.datagram, NAMES[PEER_B], 6);
    b.size = 6;
    wn_datapath *dp = new_node();
    wn_datapath *twin = new_node();
    const uint8_t mtu = take8(&b.from);
    CHECK(wn_forwarder_set_mtu(dp, TO_C, 552u + mtu * 8u, WN_OVERHEAD_PLAIN, mtu & 1) == WN_OK);
    CHECK(wn_forwarder_set_mtu(twin, TO_C, 552u + mtu * 8u, WN_OVERHEAD_PLAIN, mtu & 1) == WN_OK);
    const uint32_t port_mtu = mtu >= 0xf0 ? 576u + (mtu & 15u) * 64u : 0;
    wn_datapath_set_port_mtu(dp, port_mtu);
    wn_datapath_set_port_mtu(twin, port_mtu);
    while (b.from.left > 0)
        add_record(&b, one, two);
    flush(&b, one, two, 0, 1);
    drain(dp, one, 0, &plain, port_mtu);
    drain(twin, two, 1, &joined, port_mtu);
    if (!port_mtu)
        compare(&plain, &joined);
    empty(&plain);
    empty(&joined);
    wn_datapath_free(dp);
    wn_datapath_free(twin);
    return 0;
}
