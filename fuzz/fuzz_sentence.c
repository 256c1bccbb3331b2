/* fuzz_sentence.c - any text as one of the files by which sentence-transformers says how a model
 * embeds. The first byte chooses which. */
#include "format/sentence_modules.h"
#include "input_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *name, *usual;
} files[] = {
    {"modules.json",
     "[{\"type\": \"sentence_transformers.models.Transformer\", \"path\": \"\"},"
     " {\"type\": \"sentence_transformers.models.Pooling\", \"path\": \"1_Pooling\"},"
     " {\"type\": \"sentence_transformers.models.Dense\", \"path\": \"2_Dense\"}]"},
    {"1_Pooling/config.json", "{\"pooling_mode_mean_tokens\": true}"},
    {"2_Dense/config.json", "{\"in_features\": 4, \"out_features\": 8, \"bias\": false}"},
};

/* Before the directory itself (input_file.h). */
static void clean_parts(void) {
    static const char *const parts[] = {"copy/1_Pooling", "copy/2_Dense", "copy", "1_Pooling",
                                        "2_Dense"};
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", fuzz_directory(), parts[i]);
        if (file_is_directory(path) && directory_remove(fuzz_context(), path) != JANG_OK) {
            fprintf(stderr, "%s stays\n", path);
        }
    }
}

static void make_directory(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    if (!file_is_directory(path) && directory_make(fuzz_context(), path) != JANG_OK) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) {
        return 0;
    }
    static bool will_clean;
    if (!will_clean && fuzz_directory() && atexit(clean_parts) != 0) {
        abort();
    }
    will_clean = true;
    make_directory("1_Pooling");
    make_directory("2_Dense");
    make_directory("copy");
    fuzz_file("config.json", (const uint8_t *)"{}", 2);
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        bool chosen = data[0] % 3u == i;
        const uint8_t *usual = (const uint8_t *)files[i].usual;
        fuzz_file(files[i].name, chosen ? data + 1 : usual,
                  chosen ? size - 1 : strlen(files[i].usual));
    }
    checkpoint *c;
    if (checkpoint_open(&c, fuzz_context(), fuzz_directory(), CHECKPOINT_TEXT_ONLY) != JANG_OK) {
        abort();
    }
    sentence_modules m;
    char copy[256];
    snprintf(copy, sizeof copy, "%s/copy", fuzz_directory());
    bool read = sentence_modules_read(&m, c) == JANG_OK;
    bool fits = read && m.n_dense <= SENTENCE_DENSE_MAX;
    if (read && (!fits || !memchr(m.dense[0].path, 0, SENTENCE_PATH_BYTES))) {
        abort();
    }
    jang_status status = sentence_modules_copy(c, copy);
    (void)status;
    checkpoint_close(c);
    return 0;
}
