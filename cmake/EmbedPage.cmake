# Makes a C file that holds INPUT as the text page_html.
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" lines "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${lines}")
file(WRITE ${OUTPUT} "/* page_html.c - made from page.html by EmbedPage.cmake. */
#include \"server/page.h\"

const unsigned char page_html[] = {
${bytes}0};
const size_t page_html_bytes = sizeof page_html - 1;
")
