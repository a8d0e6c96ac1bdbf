/* What the files of the stub share. The whole program serves one call, so its state is one. */
#ifndef WEFT_STUB_H
#define WEFT_STUB_H

#include <stddef.h>
#include <stdint.h>

enum {
    CODE_BAD_ENVIRONMENT = 4,
    CODE_IO_FAILURE = 5,
    CODE_UNDECODABLE = 6,
    CODE_TRY_AGAIN = 11,
    CODE_UNAVAILABLE = 50, /* of STATUS */
    HEADER_LEN = 5,
    PROTOCOL_VERSION = 1,
    ANSWER_HEADER_LEN = 5, /* exit status and length of standard error */
    NAME_MAX_LEN = 64,
    ENVIRONMENT_MAX = 256 * 1024,
    CONFIG_MAX = 1024 * 1024,
    ANSWER_MAX = 4 * 1024 * 1024,
    ID_MAX = 200,
    IFNAME_MAX = 15,
    VALUE_MAX = 256,
    MARGIN_MS = 3000, /* what control may take beyond the time-out that it keeps itself */
};

/* Filled once, from standard input and the environment; kept out of struct call for its size. */
extern uint8_t request[HEADER_LEN + NAME_MAX_LEN + ENVIRONMENT_MAX + CONFIG_MAX + 4];
extern uint8_t answer[ANSWER_MAX];

struct call {
    const char *name;   /* what we are called */
    const char *command;
    size_t config_at;   /* where in the request the configuration begins */
    size_t len;         /* of the whole request */
    char version[16];   /* of the configuration, where that can be said */
    char network[VALUE_MAX];
    char socket[VALUE_MAX];
    char pending[VALUE_MAX];
    int64_t deadline_ms;
};

/* json.c */
int find_value(const uint8_t *text, size_t len, const char *key, char *out, size_t out_len);
size_t append_string(char *out, size_t out_len, size_t at, const char *text);

/* control.c */
int64_t now_ms(void);
size_t get_length(const uint8_t *from);
int ask(const struct call *call, size_t *answer_len);

/* pending.c */
int is_name(const char *text, size_t max, int ifname);
int write_down(const struct call *call, const char *id, const char *ifname);

/* weft_cni.c */
int write_all(int fd, const void *data, size_t len);

#endif
