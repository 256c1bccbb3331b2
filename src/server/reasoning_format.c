/* reasoning_format.c - the table of how models mark their reasoning. */
#include "msg_parser.h"

#include <string.h>

static const reasoning_format formats[] = {
    {.name = "harmony", .families = "gpt-oss", .sign = "<|channel|>"},
    {.name = "seed",
     .families = "Seed-OSS",
     .open = "<seed:think>",
     .close = "</seed:think>",
     .sign = "seed:think"},
    {.name = "gemma4",
     .families = "Gemma 4",
     .open = "<|channel>thought\n",
     .close = "<channel|>",
     .sign = "<|channel>"},
    {.name = "mistral",
     .families = "Magistral, Ministral 3",
     .open = "[THINK]",
     .close = "[/THINK]",
     .sign = "[THINK]"},
    {.name = "cohere",
     .families = "Command R7B, Command A",
     .open = "<|START_THINKING|>",
     .close = "<|END_THINKING|>",
     .strip = {"<|START_RESPONSE|>", "<|END_RESPONSE|>"},
     .sign = "<|START_THINKING|>"},
    {.name = "apriel",
     .families = "Apriel",
     .open = "Here are my reasoning steps:",
     .close = "[BEGIN FINAL RESPONSE]",
     .implied = true,
     .strip = {"[END FINAL RESPONSE]", "<|end|>"},
     .sign = "[BEGIN FINAL RESPONSE]"},
    {.name = "granite",
     .families = "Granite 3",
     .open = "Here is my thought process:",
     .close = "Here is my response:",
     .sign = "Here is my thought process:"},
    {.name = "think",
     .families = "Qwen3, QwQ, R1, GLM, MiniMax, Nemotron, Kimi, SmolLM3",
     .open = "<think>",
     .close = "</think>",
     .sign = "<think>"},
};
#define N_FORMATS (sizeof formats / sizeof formats[0])

const reasoning_format *reasoning_at(size_t i) {
    return i < N_FORMATS ? &formats[i] : NULL;
}

const reasoning_format *reasoning_find(const char *name) {
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (!strcmp(formats[i].name, name)) {
            return &formats[i];
        }
    }
    return NULL;
}

const reasoning_format *reasoning_detect(const char *chat_template) {
    for (size_t i = 0; chat_template && i < N_FORMATS; i++) {
        if (strstr(chat_template, formats[i].sign)) {
            return &formats[i];
        }
    }
    return NULL;
}

bool reasoning_is_open(const reasoning_format *r, const char *prompt, size_t n_bytes) {
    if (!r || !r->open) {
        return false;
    }
    while (n_bytes && strchr(" \n\r\t", prompt[n_bytes - 1])) {
        n_bytes--;
    }
    size_t n_open = strlen(r->open);
    while (n_open && r->open[n_open - 1] == '\n') {
        n_open--;
    }
    return n_bytes >= n_open && !memcmp(prompt + n_bytes - n_open, r->open, n_open);
}
