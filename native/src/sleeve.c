/* sleeve.c - the records of a plain sleeve datagram, and the frames that are not traffic.
 *
 *     sender name (6) | { src peer (6) | dst peer (6) | length L (2) | Ethernet frame (L) } repeated
 *
 * Works behind the sender name, or on the plaintext of a sealed datagram. Records split off before an
 * error stand: the caller has processed them already, as Weave does.
 *
 * Ref: Weave Net 2.8 router/sleeve.go (forEach, handleSpecialFrame), router/consts.go. */
#include "bytes.h"
#include "weft_native.h"

int wn_sleeve_next(const uint8_t *data, size_t len, wn_record *record)
{
    if (len == 0) {
        return 0;
    }
    if (len < WN_RECORD_LEN) {
        return WN_ERR_TRAILING;
    }
    const uint32_t frame_len = wn_get16(data + 2 * WN_NAME_LEN);
    if (frame_len > len - WN_RECORD_LEN) {
        return WN_ERR_TRUNCATED;
    }
    record->src = data;
    record->dst = data + WN_NAME_LEN;
    record->frame = data + WN_RECORD_LEN;
    record->frame_len = frame_len;
    record->next = WN_RECORD_LEN + frame_len;
    return 1;
}

void wn_sleeve_put_record(uint8_t out[WN_RECORD_LEN], const uint8_t src[WN_NAME_LEN],
                          const uint8_t dst[WN_NAME_LEN], uint16_t frame_len)
{
    memcpy(out, src, WN_NAME_LEN);
    memcpy(out + WN_NAME_LEN, dst, WN_NAME_LEN);
    wn_put16(out + 2 * WN_NAME_LEN, frame_len);
}

int wn_sleeve_special(const uint8_t *frame, size_t len, int *all_zero)
{
    if (all_zero != NULL) {
        *all_zero = 0;
    }
    /* Bytes 0..7 and 6..13: the two loads overlap. */
    if (len < WN_ETH_LEN || (wn_load_u64(frame) | wn_load_u64(frame + 6)) != 0) {
        return WN_SPECIAL_NONE;
    }
    if (all_zero != NULL) {
        /* The first byte is zero, so equal neighbours are zeros throughout. */
        *all_zero = memcmp(frame, frame + 1, len - 1) == 0;
    }
    switch (len) {
    case WN_HEARTBEAT_LEN:
        return WN_SPECIAL_HEARTBEAT;
    case WN_FRAG_TEST_LEN:
        return WN_SPECIAL_FRAG_TEST;
    default:
        return WN_SPECIAL_PMTU;
    }
}
