/* segment.c - cut a TCP or UDP super-frame into frames as the sender's stack would have sent them.
 *
 * The kernel hands over up to 64 KiB under one set of headers, with an open checksum (TSO, USO). Each
 * piece gets a copy of the headers with length, IPv4 ID, sequence number and flags set for it and
 * checksums computed in full; the payload stays where it is.
 *   TCP: FIN and PSH only on the last piece, CWR only on the first (RFC 3168 6.1.2, as Linux TSO).
 *   UDP: every piece is a datagram of its own (UDP_SEGMENT).
 */
#include "bytes.h"
#include "internal.h"

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

/* Check a super-frame and plan its cut. WN_OK, or WN_ERR_RANGE when the virtio header and the frame
 * disagree. wn_cut_limit may shorten the pieces afterwards. */
int wn_cut_init(wn_cut *cut, const wn_frame *frame, const wn_view *view)
{
    uint8_t type = frame->vnet.gso_type & (uint8_t)~WN_GSO_ECN;
    uint8_t proto = type == WN_GSO_UDP_L4 ? IPPROTO_UDP : IPPROTO_TCP;
    if (!(view->flags & WN_VIEW_L4) || (view->flags & WN_VIEW_FRAGMENT) || view->l4_proto != proto)
        return WN_ERR_RANGE;
    if ((type == WN_GSO_TCPV4 && view->ip_version != 4) || (type == WN_GSO_TCPV6 && view->ip_version != 6))
        return WN_ERR_RANGE;
    if (type != WN_GSO_TCPV4 && type != WN_GSO_TCPV6 && type != WN_GSO_UDP_L4)
        return WN_ERR_RANGE;
    if (frame->vnet.gso_size == 0 || view->payload_off >= frame->len ||
        view->l3_off + view->ip_len != frame->len)
        return WN_ERR_RANGE;
    uint32_t payload = frame->len - view->payload_off;
    cut->frame = frame;
    cut->view = *view;
    cut->gso_size = frame->vnet.gso_size;
    cut->header_len = view->payload_off;
    cut->pieces = (payload + cut->gso_size - 1) / cut->gso_size;
    if (cut->pieces > WN_SEGMENTS_MAX || cut->header_len > 512)
        return WN_ERR_RANGE;
    return WN_OK;
}

/* Make the pieces no longer than gso_size bytes of payload; only TCP may be cut otherwise than asked. */
void wn_cut_limit(wn_cut *cut, uint32_t gso_size)
{
    if (gso_size == 0 || gso_size >= cut->gso_size || cut->view.l4_proto != IPPROTO_TCP)
        return;
    uint32_t payload = cut->frame->len - cut->header_len;
    cut->gso_size = gso_size;
    cut->pieces = (payload + gso_size - 1) / gso_size;
}

static void set_tcp(const wn_cut *cut, uint32_t index, uint8_t *tcp, uint32_t sum, const uint8_t *payload,
                    uint32_t payload_len)
{
    uint32_t header = cut->header_len - cut->view.l4_off;
    wn_put32(tcp + 4, wn_get32(tcp + 4) + index * cut->gso_size);
    if (index + 1 < cut->pieces)
        tcp[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (index > 0)
        tcp[13] &= (uint8_t)~TCP_CWR;
    wn_put16(tcp + 16, 0);
    sum = wn_csum_add(tcp, header, sum);
    sum = wn_csum_add(payload, payload_len, sum);
    wn_put16(tcp + 16, (uint16_t)~wn_csum_fold(sum));
}

static void set_udp(uint8_t *udp, uint32_t sum, const uint8_t *payload, uint32_t payload_len)
{
    wn_put16(udp + 4, (uint16_t)(8 + payload_len));
    wn_put16(udp + 6, 0);
    sum = wn_csum_add(udp, 8, sum);
    sum = wn_csum_add(payload, payload_len, sum);
    uint16_t csum = (uint16_t)~wn_csum_fold(sum);
    wn_put16(udp + 6, csum ? csum : 0xffff);
}

/* Headers of piece `index` into header (cut->header_len bytes); payload points into the frame. */
void wn_cut_piece(const wn_cut *cut, uint32_t index, uint8_t *header, const uint8_t **payload,
                  uint32_t *payload_len)
{
    const wn_view *view = &cut->view;
    uint32_t total = cut->frame->len - cut->header_len;
    uint32_t at = index * cut->gso_size;
    uint32_t len = total - at < cut->gso_size ? total - at : cut->gso_size;
    memcpy(header, cut->frame->data, cut->header_len);
    *payload = cut->frame->data + cut->header_len + at;
    *payload_len = len;
    uint8_t *ip = header + view->l3_off;
    uint32_t l4_len = cut->header_len - view->l4_off + len;
    uint32_t sum = 0;
    if (view->ip_version == 4) {
        wn_put16(ip + 2, (uint16_t)(cut->header_len - view->l3_off + len));
        wn_put16(ip + 4, (uint16_t)(wn_get16(ip + 4) + index));
        wn_ip4_set_csum(ip, view->l4_off - view->l3_off);
        sum = wn_csum_pseudo4(ip + 12, view->l4_proto, l4_len);
    } else {
        wn_put16(ip + 4, (uint16_t)(cut->header_len - view->l3_off - 40 + len));
        sum = wn_csum_pseudo6(ip + 8, view->l4_proto, l4_len);
    }
    if (view->l4_proto == IPPROTO_TCP)
        set_tcp(cut, index, header + view->l4_off, sum, *payload, len);
    else
        set_udp(header + view->l4_off, sum, *payload, len);
}
