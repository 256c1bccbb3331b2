/* fuzz_structure.c - a structure grammar: no input may crash, hang or leak. */
#include "grammar_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return fuzz_grammar(JANG_GRAMMAR_STRUCTURE, data, size);
}
