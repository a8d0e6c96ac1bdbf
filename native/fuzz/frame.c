/* Any bytes as a frame: the promises that native/src/frame.c makes about a view.
 * Input: the frame */
#include "fuzz.h"

static void check_l4(const uint8_t *frame, const wn_view *view)
{
    const uint8_t *l4 = frame + view->l4_off;
    const uint32_t header = view->payload_off - view->l4_off;
    CHECK((view->flags & (WN_VIEW_FRAGMENT | WN_VIEW_LATER)) == 0);
    if (view->l4_proto == 6) {
        CHECK(header >= 20 && header == (uint32_t)(l4[12] >> 4) * 4);
    } else {
        CHECK(view->l4_proto == 17 && header == 8);
    }
    const uint8_t *ip = frame + view->l3_off;
    const uint32_t said = view->ip_version == 4 ? get16(ip + 2) : 40u + get16(ip + 4);
    CHECK(said == view->ip_len || (view->ip_version == 4 && said == 0));
}

static void check_ip4(const uint8_t *frame, const wn_view *view)
{
    const uint8_t *ip = frame + view->l3_off;
    const uint16_t word = get16(ip + 6);
    CHECK(view->ethertype == 0x0800 && ip[0] >> 4 == 4);
    CHECK(view->l4_off == view->l3_off + (ip[0] & 15u) * 4u && view->l4_off >= view->l3_off + 20);
    CHECK(view->l4_proto == ip[9]);
    CHECK(((view->flags & WN_VIEW_IPV4) != 0) == (view->vlan_tags == 0));
    CHECK(((view->flags & WN_VIEW_DF) != 0) == (view->vlan_tags == 0 && (word & 0x4000) != 0));
    CHECK(((view->flags & WN_VIEW_FRAGMENT) != 0) == ((word & 0x3fff) != 0));
    CHECK(((view->flags & WN_VIEW_LATER) != 0) == ((word & 0x1fff) != 0));
    CHECK(((view->flags & WN_VIEW_EXT) != 0) == (view->l4_off > view->l3_off + 20));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *frame = exact_copy(data, size);
    wn_view view;
    memset(&view, 0xa5, sizeof view);
    const int code = wn_frame_parse(frame, size, &view);
    CHECK(code == (size < 14 ? WN_ERR_TRUNCATED : WN_OK));
    if (code == WN_OK) {
        CHECK(view.vlan_tags <= 2 && view.l3_off == 14u + 4u * view.vlan_tags);
        CHECK(view.l3_off <= size && view.l3_off + view.ip_len <= size);
        CHECK(view.ethertype == get16(frame + view.l3_off - 2));
        CHECK(view.l3_off <= view.l4_off && view.l4_off <= view.payload_off);
        CHECK(view.ip_version == 0 || view.ip_version == 4 || view.ip_version == 6);
        if (view.ip_version == 0) {
            CHECK(view.flags == 0 && view.ip_len == 0 && view.l4_proto == 0);
            CHECK(view.payload_off == view.l3_off);
        } else {
            CHECK(view.payload_off <= view.l3_off + view.ip_len);
        }
        if (view.ip_version == 4) {
            check_ip4(frame, &view);
        }
        if (view.ip_version == 6) {
            CHECK(view.ethertype == 0x86dd && (view.flags & (WN_VIEW_IPV4 | WN_VIEW_DF)) == 0);
            CHECK(((view.flags & WN_VIEW_EXT) != 0) == (view.l4_off > view.l3_off + 40) ||
                  (view.flags & WN_VIEW_EXT) != 0);
        }
        if (view.flags & WN_VIEW_L4) {
            check_l4(frame, &view);
        } else {
            CHECK(view.payload_off == view.l4_off);
        }
    }
    free(frame);
    return 0;
}
