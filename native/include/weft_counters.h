/* weft_counters.h - one list of counters, expanded here to an enum; base/counters.py repeats the
 * names and says what each means, and a test keeps the two equal. X(C name, exported name). */
#ifndef WEFT_COUNTERS_H
#define WEFT_COUNTERS_H

#define WN_COUNTERS(X)                                                                   \
    X(CAPTURED_FRAMES, captured_frames)                                                  \
    X(CAPTURED_BYTES, captured_bytes)                                                    \
    X(DELIVERED_FRAMES, delivered_frames)                                                \
    X(DELIVERED_BYTES, delivered_bytes)                                                  \
    X(SENT_DATAGRAMS, sent_datagrams)                                                    \
    X(SENT_FRAMES, sent_frames)                                                          \
    X(SENT_BYTES, sent_bytes)                                                            \
    X(RECEIVED_DATAGRAMS, received_datagrams)                                            \
    X(RECEIVED_FRAMES, received_frames)                                                  \
    X(RECEIVED_BYTES, received_bytes)                                                    \
    X(RELAYED_FRAMES, relayed_frames)                                                    \
    X(FLOODED_FRAMES, flooded_frames)                                                    \
    X(FRAGMENTED_FRAMES, fragmented_frames)                                              \
    X(COALESCED_FRAMES, coalesced_frames)                                                \
    X(TOO_BIG_ANSWERS, too_big_answers)                                                  \
    X(SPECIAL_FRAMES, special_frames)                                                    \
    X(FDB_LEARNED, fdb_learned)                                                          \
    X(FDB_MOVED, fdb_moved)                                                              \
    X(FDB_FULL, fdb_full)                                                                \
    X(FDB_EXPIRED, fdb_expired)                                                          \
    X(DROP_SHORT_FRAME, drop_short_frame)                                                \
    X(DROP_REMOTE_SOURCE, drop_remote_source)                                            \
    X(DROP_STP, drop_stp)                                                                \
    X(DROP_LOCAL_DESTINATION, drop_local_destination)                                    \
    X(DROP_NO_ROUTE, drop_no_route)                                                      \
    X(DROP_NO_ADDRESS, drop_no_address)                                                  \
    X(DROP_TOO_BIG, drop_too_big)                                                        \
    X(DROP_TOO_BIG_FLOODED, drop_too_big_flooded)                                        \
    X(DROP_FRAME_TOO_LONG, drop_frame_too_long)                                          \
    X(DROP_BAD_OFFLOAD, drop_bad_offload)                                                \
    X(DROP_BAD_FRAGMENT, drop_bad_fragment)                                              \
    X(DROP_SHORT_DATAGRAM, drop_short_datagram)                                          \
    X(DROP_UNKNOWN_SENDER, drop_unknown_sender)                                          \
    X(DROP_TRUNCATED_RECORD, drop_truncated_record)                                      \
    X(DROP_TRAILING_BYTES, drop_trailing_bytes)                                          \
    X(DROP_UNKNOWN_PEER, drop_unknown_peer)                                              \
    X(DROP_OWN_SOURCE, drop_own_source)                                                  \
    X(DROP_STRAY_SPECIAL, drop_stray_special)                                            \
    X(DROP_SPECIAL_FLOOD, drop_special_flood)                                            \
    X(DROP_BATCH_FULL, drop_batch_full)                                                  \
    X(DROP_PATH_MTU, drop_path_mtu)                                                      \
    X(DROP_SEND_ERROR, drop_send_error)                                                  \
    X(DROP_PORT_DOWN, drop_port_down)                                                    \
    X(DROP_PORT_BUSY, drop_port_busy)                                                    \
    X(DROP_DECRYPT, drop_decrypt)                                                        \
    X(DROP_REPLAY, drop_replay)                                                          \
    X(DROP_PLAIN_ON_ENCRYPTED, drop_plain_on_encrypted)                                  \
    X(DROP_NONCE_EXHAUSTED, drop_nonce_exhausted)                                        \
    X(DROP_KEY_CHANGED, drop_key_changed)                                                \
    X(DROP_SOCKET_BUFFER, drop_socket_buffer)

enum {
#define WN_COUNTER_ENUM(id, name) WN_C_##id,
    WN_COUNTERS(WN_COUNTER_ENUM)
#undef WN_COUNTER_ENUM
    WN_C__COUNT
};

#endif
