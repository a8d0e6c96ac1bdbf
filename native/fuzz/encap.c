/* Arbitrary captured frames with arbitrary virtio headers through lookup and encap. Every datagram is
 * one that a Weave peer can read, within the path's limits; a valid frame or super-frame arrives whole,
 * in order and with right checksums, or not at all.
 * Input: mtu and stack fragmentation (3) | operations, see put_frame() */
#include "bytes.h"
#include "internal.h"
#include "node.h"

#define SENT_MAX 64u
#define BYTES_MAX 300000u /* of payload, so that a run stays short */
#define PORT_BASE 2000u

/* A valid frame we handed in, and how far each forwarder has got with it. */
typedef struct sent {
    shape shape;
    uint32_t gso_size; /* 0: an ordinary frame */
    uint32_t got[FORWARDERS];
    uint32_t pieces[FORWARDERS];
} sent;

typedef struct run {
    sent sent[SENT_MAX];
    uint32_t count;
    uint32_t bytes;
    /* fragments of one packet under way, per forwarder */
    uint8_t whole[FORWARDERS][WN_FRAME_MAX + 64];
    uint32_t whole_len[FORWARDERS];
    uint32_t strict; /* no damaged frame went in, so everything must be explained */
} run;

/* A whole, unfragmented frame on its way to `forwarder`. */
static void check_piece(run *r, uint16_t forwarder, const uint8_t *frame, size_t size)
{
    wn_view view;
    CHECK(wn_frame_parse(frame, size, &view) == WN_OK);
    if (!(view.flags & WN_VIEW_L4))
        return;
    const uint8_t *ip = frame + view.l3_off;
    const uint8_t *l4 = frame + view.l4_off;
    const uint32_t which = get16(l4) - PORT_BASE;
    if (get16(l4) < PORT_BASE || which >= r->count || r->sent[which].shape.proto != view.l4_proto)
        return;
    sent *s = &r->sent[which];
    const size_t l4_len = view.ip_len - (view.l4_off - view.l3_off);
    const uint32_t payload = view.ip_len - (view.payload_off - view.l3_off);
    const uint32_t at = s->got[forwarder];
    if (view.ip_version == 4) {
        CHECK(slow_sum(ip, 20, 0) == 0xffff);
        CHECK(get16(ip + 4) == (uint16_t)(s->shape.id + s->pieces[forwarder]));
        CHECK((get16(ip + 6) & 0x4000u) == (s->shape.ip_word & 0x4000u));
    }
    CHECK(slow_l4_sum(view.ip_version == 4 ? ip + 12 : ip + 8, view.ip_version == 4 ? 8 : 32, view.l4_proto, l4,
                      l4_len) == 0xffff);
    CHECK(payload <= s->shape.payload - at);
    const int last = at + payload == s->shape.payload;
    if (s->gso_size)
        CHECK(payload <= s->gso_size && payload > 0);
    if (view.l4_proto == 6) {
        const uint8_t hold = (uint8_t)((last ? 0 : 0x09) | (at ? 0x80 : 0));
        CHECK(wn_get32(l4 + 4) == s->shape.seq + at);
        CHECK(l4[13] == (s->shape.tcp_flags & (uint8_t)~hold));
    } else {
        CHECK(get16(l4 + 4) == 8 + payload);
        CHECK(!s->gso_size || last || payload == s->gso_size);
    }
    for (uint32_t i = 0; i < payload; i++)
        CHECK(frame[view.payload_off + i] == pattern(s->shape.port, s->shape.seq + at + i));
    s->got[forwarder] += payload;
    s->pieces[forwarder]++;
}

/* Reassemble IPv4 fragments; whole frames go on to check_piece. */
static void visit(void *context, uint16_t forwarder, const uint8_t *frame, size_t size)
{
    run *r = context;
    CHECK(forwarder < FORWARDERS);
    if (!r->strict)
        return;
    const int fragment = size >= 34 && get16(frame + 12) == 0x0800 && (get16(frame + 20) & 0x3fff) != 0;
    if (!fragment) {
        check_piece(r, forwarder, frame, size);
        return;
    }
    uint8_t *whole = r->whole[forwarder];
    uint32_t *len = &r->whole_len[forwarder];
    const uint16_t word = get16(frame + 20);
    const uint32_t total = get16(frame + 16);
    CHECK(slow_sum(frame + 14, 20, 0) == 0xffff && total + 14 <= size);
    if ((word & 0x1fff) == 0) {
        CHECK(*len == 0);
        memcpy(whole, frame, 34);
        *len = 34;
    }
    CHECK(*len == 34u + (word & 0x1fffu) * 8u && *len + total - 20 <= WN_FRAME_MAX + 14u);
    memcpy(whole + *len, frame + 34, total - 20);
    *len += total - 20;
    if (!(word & 0x2000)) {
        put16(whole + 16, *len - 14);
        put16(whole + 20, get16(whole + 20) & 0xc000u);
        put16(whole + 24, 0);
        put16(whole + 24, slow_sum(whole + 14, 20, 0) ^ 0xffff);
        check_piece(r, forwarder, whole, *len);
        *len = 0;
    }
}

/* The checksum as the kernel leaves it: the pseudo header's sum, to be finished from csum_start on. */
static void leave_open(uint8_t *frame, size_t size, const shape *s, wn_vnet *vnet)
{
    const size_t l3 = 14u + 4u * s->tags;
    const size_t l4 = l3 + (s->version == 4 ? 20 : 40);
    const uint8_t *addrs = frame + l3 + (s->version == 4 ? 12 : 8);
    vnet->flags = WN_VNET_NEEDS_CSUM;
    vnet->csum_start = (uint16_t)l4;
    vnet->csum_offset = s->proto == 6 ? 16 : 6;
    put16(frame + l4 + vnet->csum_offset,
          slow_sum(addrs, s->version == 4 ? 8 : 32, s->proto + (uint32_t)(size - l4)));
}

/* A valid frame, ordinary or super, checksum open or not. */
static void put_valid(run *r, source *from, wn_batch *batch, uint8_t op)
{
    static const uint16_t sizes[] = {0, 1, 100, 1400, 3000, 9000, 40000, 65400};
    static const uint16_t segments[] = {1398, 1398, 536, 1, 200, 8900, 30000, 65440};
    static uint8_t frame[WN_FRAME_MAX + 200];
    const uint8_t which = take8(from);
    const uint8_t how = take8(from);
    if (r->count == SENT_MAX || r->bytes > BYTES_MAX)
        return;
    sent *s = &r->sent[r->count];
    s->shape = (shape){.version = which & 1 ? 6 : 4,
                       .proto = which & 2 ? 17 : 6,
                       .options = which & 4 ? 3 : 0,
                       .tags = (uint8_t)(which >= 0xf0 ? 1 + (which & 1) : 0),
                       .tcp_flags = take8(from),
                       .ip_word = which & 8 ? 0 : 0x4000,
                       .id = take16(from),
                       .port = (uint16_t)(PORT_BASE + r->count),
                       .seq = take16(from) * 65537u,
                       .payload = sizes[how & 7] + (how & 0x40 ? take8(from) : 0u),
                       .src = 1,
                       .dst = (uint8_t[]){2, 3, 4, 0x99, 0xff, 2, 2, 4}[which >> 4 & 7]};
    const uint32_t most = 65535u - (s->shape.version == 4 ? 20u : 0u) - 32u;
    if (s->shape.payload > most)
        s->shape.payload = most;
    r->bytes += s->shape.payload;
    const size_t size = build_frame(frame, &s->shape);
    wn_vnet vnet = {0};
    if (op & 1 && s->shape.payload > 0) {
        s->gso_size = segments[how >> 3 & 7];
        if (s->gso_size < s->shape.payload / 1400u + 1) /* no kernel cuts finer */
            s->gso_size = s->shape.payload / 1400u + 1;
        vnet.gso_type = s->shape.proto == 17 ? WN_GSO_UDP_L4 : s->shape.version == 4 ? WN_GSO_TCPV4 : WN_GSO_TCPV6;
        vnet.gso_size = (uint16_t)s->gso_size;
        vnet.hdr_len = (uint16_t)(size - s->shape.payload);
    }
    if (op & 3)
        leave_open(frame, size, &s->shape, &vnet);
    if (op & 4 && how >= 0xc0) { /* damage: from here on only the outer rules are checked */
        r->strict = 0;
        frame[take16(from) % size] ^= take8(from);
        ((uint8_t *)&vnet)[take8(from) % sizeof vnet] ^= take8(from);
    }
    uint8_t *tight = exact_copy(frame, size);
    if (wn_batch_put_captured(batch, (const uint8_t *)&vnet, tight, size) == WN_OK)
        r->count++;
    else
        *s = (sent){0};
    free(tight);
}

static void put_frame(run *r, source *from, wn_batch *batch)
{
    const uint8_t op = take8(from);
    if (op < 0xe0) {
        put_valid(r, from, batch, op);
        return;
    }
    size_t got = 0;
    uint8_t vnet[10] = {0};
    const uint8_t *at = take_bytes(from, op & 1 ? sizeof vnet : 0, &got);
    memcpy(vnet, at, got);
    at = take_bytes(from, take8(from), &got);
    r->strict = 0;
    wn_batch_put_captured(batch, op & 2 ? NULL : vnet, at, got);
}

/* Every frame went whole to a neighbour or not at all. */
static void check_complete(const run *r)
{
    for (uint32_t i = 0; i < r->count && r->strict; i++)
        for (int f = 0; f < FORWARDERS; f++) {
            const sent *s = &r->sent[i];
            CHECK(s->got[f] == 0 || s->got[f] == s->shape.payload);
        }
    for (int f = 0; f < FORWARDERS && r->strict; f++)
        CHECK(r->whole_len[f] == 0);
}

static void check_answers(const wn_batch *batch)
{
    static uint8_t frame[2048];
    for (int i = 0; i < wn_batch_injects(batch); i++) {
        uint8_t vnet[10];
        wn_view view;
        const int size = wn_batch_inject_copy(batch, i, vnet, frame, sizeof frame);
        CHECK(size >= 60 && size <= 14 + 1280);
        CHECK(wn_frame_parse(frame, (size_t)size, &view) == WN_OK);
        CHECK(view.l4_proto == 1 || view.l4_proto == 58);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t mtus[] = {1438, 552, 68, 76, 1280, 8938, 65473, 65535};
    static wn_batch *batch;
    static run r;
    if (size > 4096)
        return 0;
    if (!batch)
        batch = wn_batch_new();
    CHECK(batch != NULL);
    wn_batch_reset(batch);
    memset(r.sent, 0, sizeof r.sent);
    memset(r.whole_len, 0, sizeof r.whole_len);
    r.count = r.bytes = 0;
    r.strict = 1;
    source from = {data, size};
    wn_datapath *dp = new_node();
    for (uint16_t f = TO_B; f <= TO_C; f++) {
        const uint8_t choice = take8(&from);
        CHECK(wn_forwarder_set_mtu(dp, f, mtus[choice & 7], WN_OVERHEAD_PLAIN, choice >> 7) == WN_OK);
    }
    while (from.left > 0)
        put_frame(&r, &from, batch);
    const int frames = wn_batch_frames(batch);
    const int going = wn_lookup(dp, batch, NOW_S);
    CHECK(going >= 0 && going <= frames);
    int more = 0;
    int calls = 0;
    do {
        more = wn_encap(dp, batch, NOW_S);
        CHECK(more >= 0 && ++calls < 100000);
        check_messages(dp, batch, visit, &r);
        check_answers(batch);
    } while (more & WN_MORE);
    uint64_t counters[WN_C__COUNT];
    wn_datapath_counters(dp, counters);
    if (counters[WN_C_DROP_BATCH_FULL] == 0)
        check_complete(&r);
    if (r.strict)
        CHECK(counters[WN_C_DROP_BAD_OFFLOAD] == 0);
    wn_datapath_free(dp);
    return 0;
}
