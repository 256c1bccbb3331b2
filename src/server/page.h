/* page.h - the web page, which the build makes out of page.html. */
#ifndef JANG_SERVER_PAGE_H
#define JANG_SERVER_PAGE_H

#include <stddef.h>

extern const unsigned char page_html[];
extern const size_t page_html_bytes;

#endif
