/* page_key.c - names of pages of keys and values by what they hold. */
#include "engine/page_key.h"

#include "ops/ops.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t rotate(uint64_t x, int n) {
    return x << n | x >> (64 - n);
}

static void rounds(uint64_t v[4], int n) {
    for (int i = 0; i < n; i++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void take_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

/* Words are read in the machine's own order of bytes: keys are of one machine. */
page_key page_key_hash(page_key secret, const void *data, size_t n_bytes) {
    uint64_t v[4] = {
        secret.a ^ 0x736f6d6570736575u,
        secret.b ^ 0x646f72616e646f6du ^ 0xee,
        secret.a ^ 0x6c7967656e657261u,
        secret.b ^ 0x7465646279746573u,
    };
    const uint8_t *at = data;
    size_t left = n_bytes;
    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        take_word(v, word);
    }
    uint64_t last = (uint64_t)n_bytes << 56;
    for (size_t i = 0; i < left; i++) {
        last |= (uint64_t)at[i] << (8 * i);
    }
    take_word(v, last);
    v[2] ^= 0xee;
    rounds(v, 4);
    page_key key = {v[0] ^ v[1] ^ v[2] ^ v[3], 0};
    v[1] ^= 0xdd;
    rounds(v, 4);
    key.b = v[0] ^ v[1] ^ v[2] ^ v[3];
    return key;
}

page_key page_key_root(page_key secret, const char *salt) {
    return page_key_hash(secret, salt, strlen(salt));
}

page_key page_key_next(page_key secret, page_key before, const int32_t *ids) {
    struct {
        page_key before;
        int32_t ids[OPS_PAGE_TOKENS];
    } text;
    text.before = before;
    memcpy(text.ids, ids, sizeof text.ids);
    return page_key_hash(secret, &text, sizeof text);
}

page_key page_key_random(void) {
    page_key key = {0, 0};
    if (getrandom(&key, sizeof key, 0) != (ssize_t)sizeof key) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        key = (page_key){(uint64_t)now.tv_nsec, (uint64_t)now.tv_sec ^ (uint64_t)(uintptr_t)&key};
    }
    return key;
}
