/* node.h - one node with three peers for the targets that drive whole stages, a builder of valid
 * frames, and the checks that hold for everything the node sends.
 *
 *     A (we) -- B -- D        B and C are neighbours, D is reached through B
 *      \------ C              A floods to B and C; B's floods go on to C
 */
#ifndef WEFT_FUZZ_NODE_H
#define WEFT_FUZZ_NODE_H

#include "fuzz.h"

enum { PEER_A, PEER_B, PEER_C, PEER_D, PEERS };
enum { TO_B = 1, TO_C = 2, FORWARDERS = 3 };
#define NOW_S 1000u

static const uint8_t NAMES[PEERS + 1][6] = {
    {0xce, 1, 0, 0, 0, 1}, {0xce, 2, 0, 0, 0, 2}, {0xce, 3, 0, 0, 0, 3},
    {0xce, 4, 0, 0, 0, 4}, {0xce, 9, 9, 9, 9, 9}, /* the last one is unknown to A */
};
static const uint8_t MACS[PEERS][6] = {
    {0x0a, 0, 0, 0, 0, 1}, {0x0a, 0, 0, 0, 0, 2}, {0x0a, 0, 0, 0, 0, 3}, {0x0a, 0, 0, 0, 0, 4}};

static inline wn_datapath *new_node(void)
{
    static const uint16_t both[] = {TO_B, TO_C};
    wn_datapath *dp = wn_datapath_new();
    wn_tables *tables = wn_tables_new(PEERS, PEER_A, 8);
    CHECK(dp != NULL && tables != NULL);
    for (uint16_t peer = 0; peer < PEERS; peer++)
        CHECK(wn_tables_set_peer(tables, peer, NAMES[peer]) == WN_OK);
    for (uint16_t f = TO_B; f <= TO_C; f++) {
        CHECK(wn_tables_set_neighbour(tables, f, f) == WN_OK);
        CHECK(wn_tables_set_unicast(tables, f, f) == WN_OK);
        CHECK(wn_forwarder_set(dp, f, f, NAMES[f], 0x0100007fu, 6783) == WN_OK);
    }
    CHECK(wn_tables_set_unicast(tables, PEER_D, TO_B) == WN_OK);
    CHECK(wn_tables_set_broadcast(tables, PEER_A, both, 2) == WN_OK);
    CHECK(wn_tables_set_broadcast(tables, PEER_B, both + 1, 1) == WN_OK);
    CHECK(wn_tables_set_broadcast(tables, PEER_D, both + 1, 1) == WN_OK);
    wn_datapath_swap(dp, tables);
    for (uint16_t peer = PEER_B; peer < PEERS; peer++)
        wn_fdb_learn_remote(wn_datapath_fdb(dp), MACS[peer], peer, NOW_S);
    wn_fdb_learn_local(wn_datapath_fdb(dp), MACS[PEER_A], PEER_A, NOW_S);
    return dp;
}

/* What a built frame is to be. */
typedef struct shape {
    uint8_t version;      /* 4 or 6 */
    uint8_t proto;        /* 6 or 17 */
    uint8_t tags;         /* VLAN tags, 0..2 */
    uint8_t options;      /* 4-byte words of TCP options */
    uint8_t tcp_flags;
    uint16_t ip_word;     /* flags and offset */
    uint16_t id;
    uint16_t port;        /* source */
    uint32_t seq;
    uint32_t payload;     /* bytes */
    uint8_t src, dst;     /* last byte of MAC and IP address; MAC dst 0xff: broadcast */
} shape;

static inline uint8_t pattern(uint16_t port, uint32_t at)
{
    return (uint8_t)(at * 31u + (at >> 8) * 7u + port);
}

static inline size_t put_ip(uint8_t *ip, const shape *s, size_t l4_len)
{
    if (s->version == 4) {
        memset(ip, 0, 20);
        ip[0] = 0x45;
        put16(ip + 2, (unsigned)(20 + l4_len));
        put16(ip + 4, s->id);
        put16(ip + 6, s->ip_word);
        ip[8] = 64;
        ip[9] = s->proto;
        ip[12] = ip[16] = 10;
        ip[15] = s->src;
        ip[19] = s->dst;
        put16(ip + 10, slow_sum(ip, 20, 0) ^ 0xffff);
        return 20;
    }
    memset(ip, 0, 40);
    ip[0] = 0x60;
    put16(ip + 4, (unsigned)l4_len);
    ip[6] = s->proto;
    ip[7] = 64;
    ip[8] = ip[24] = 0xfd;
    ip[23] = s->src;
    ip[39] = s->dst;
    return 40;
}

/* Build the frame with right checksums; returns its length. out has room for headers and payload. */
static inline size_t build_frame(uint8_t *out, const shape *s)
{
    static const unsigned tag_types[] = {0x8100, 0x88a8};
    memset(out, s->dst == 0xff ? 0xff : 0, 12);
    if (s->dst != 0xff)
        memcpy(out, (const uint8_t[]){0x0a, 0, 0, 0, 0, s->dst}, 6);
    memcpy(out + 6, (const uint8_t[]){0x0a, 0, 0, 0, 0, s->src}, 6);
    size_t l3 = 14;
    for (unsigned i = 0; i < s->tags; i++, l3 += 4) {
        put16(out + l3 - 2, tag_types[i % 2]);
        put16(out + l3, 100 + i);
    }
    put16(out + l3 - 2, s->version == 4 ? 0x0800 : 0x86dd);
    const size_t header = s->proto == 6 ? 20u + 4u * s->options : 8u;
    const size_t l4_len = header + s->payload;
    uint8_t *ip = out + l3;
    uint8_t *l4 = ip + put_ip(ip, s, l4_len);
    memset(l4, 0, header);
    put16(l4, s->port);
    put16(l4 + 2, 80);
    if (s->proto == 6) {
        put16(l4 + 4, s->seq >> 16);
        put16(l4 + 6, s->seq & 0xffff);
        l4[12] = (uint8_t)(header / 4 << 4);
        l4[13] = s->tcp_flags;
        put16(l4 + 14, 512);
        memset(l4 + 20, 1, header - 20);
    } else {
        put16(l4 + 4, (unsigned)l4_len);
    }
    for (uint32_t i = 0; i < s->payload; i++)
        l4[header + i] = pattern(s->port, s->seq + i);
    const size_t addrs = s->version == 4 ? 8 : 32;
    const uint8_t *at = s->version == 4 ? ip + 12 : ip + 8;
    const unsigned sum = slow_l4_sum(at, addrs, s->proto, l4, l4_len) ^ 0xffff;
    put16(l4 + (s->proto == 6 ? 16 : 6), sum == 0 ? 0xffff : sum);
    return (size_t)(l4 - out) + l4_len;
}

typedef void (*frame_visitor)(void *context, uint16_t forwarder, const uint8_t *frame, size_t size);

/* Every record of a datagram: known peers, whole frames; returns how many there are. */
static inline unsigned check_datagram(const uint8_t *data, size_t size, const wn_msg_info *info,
                                      const wn_forwarder_stats *to, frame_visitor visit, void *context)
{
    const size_t limit = to->mtu + WN_OVERHEAD_PLAIN - WN_IP_UDP_LEN;
    unsigned records = 0;
    CHECK(size >= WN_NAME_LEN && size <= WN_PAYLOAD_MAX);
    CHECK(memcmp(data, NAMES[PEER_A], 6) == 0);
    size_t at = WN_NAME_LEN;
    while (at < size) {
        CHECK(size - at >= WN_RECORD_LEN);
        const size_t frame_len = get16(data + at + 12);
        CHECK(frame_len >= WN_ETH_LEN && frame_len <= size - at - WN_RECORD_LEN);
        int src_known = 0;
        int dst_known = 0;
        for (int i = 0; i < PEERS; i++) {
            src_known |= memcmp(data + at, NAMES[i], 6) == 0;
            dst_known |= memcmp(data + at + 6, NAMES[i], 6) == 0;
        }
        CHECK(src_known && dst_known);
        CHECK(!info->df || frame_len <= (to->mtu + 14 < 60 ? 60 : to->mtu + 14));
        if (visit)
            visit(context, info->forwarder, data + at + WN_RECORD_LEN, frame_len);
        at += WN_RECORD_LEN + frame_len;
        records++;
    }
    CHECK(records >= 1 && records <= WN_AGGREGATE_MAX);
    CHECK((records == 1 && !info->df) || size <= limit);
    return records;
}

/* Everything the batch would send; visit (may be NULL) sees each frame in order. */
static inline void check_messages(wn_datapath *dp, const wn_batch *batch, frame_visitor visit, void *context)
{
    static uint8_t data[WN_PAYLOAD_MAX + 1];
    for (int i = 0; i < wn_batch_msgs(batch); i++) {
        wn_msg_info info;
        wn_forwarder_stats to;
        CHECK(wn_batch_msg_info(batch, i, &info) == WN_OK);
        CHECK(wn_forwarder_get_stats(dp, info.forwarder, &to) == WN_OK);
        const int size = wn_batch_msg_copy(batch, i, data, sizeof data);
        CHECK(size > 0 && (uint32_t)size == info.len && size <= WN_PAYLOAD_MAX);
        const size_t step = info.gso_size ? info.gso_size : (size_t)size;
        unsigned datagrams = 0;
        unsigned frames = 0;
        for (size_t at = 0; at < (size_t)size; at += step, datagrams++) {
            const size_t left = (size_t)size - at;
            frames += check_datagram(data + at, left < step ? left : step, &info, &to, visit, context);
        }
        CHECK(datagrams == info.datagrams && frames == info.frames && datagrams <= 64);
    }
}

#endif
