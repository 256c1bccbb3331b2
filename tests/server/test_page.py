#!/usr/bin/env python3
"""test_page.py - the web page in a real browser: Chromium, driven by Playwright.

Skipped, saying so, where either is missing. JANG_SHOTS: a directory for pictures to look at.
"""

import os
import shutil
import sys
import time

from serving import Server, run_tests, small_model

HOSTILE = "<img src=x onerror=\"window.bad=1\"><script>window.bad=1</script> **bold** `<b>`"


def browser_path():
    for name in ["chromium", "chromium-browser", "google-chrome"]:
        if shutil.which(name):
            return shutil.which(name)
    return None


def shot(page, name):
    if os.environ.get("JANG_SHOTS"):
        page.screenshot(path=os.path.join(os.environ["JANG_SHOTS"], name + ".png"))


def wait_true(page, expression, seconds=60):
    """wait_for_function would need eval, which the page's policy forbids."""
    end = time.time() + seconds
    while not page.evaluate(expression):
        assert time.time() < end, expression
        page.wait_for_timeout(20)


DONE = "document.querySelector('#send').textContent === 'Send'"


def ask(page, text):
    page.fill("#input", text)
    page.press("#input", "Enter")
    wait_true(page, DONE)


def short(page):
    page.evaluate("""() => { settings.max_tokens = 40; settings.temperature = 0 }""")


def test_page_answers_and_keeps_the_conversation(page, s):
    short(page)
    ask(page, "Say hi.")
    text = page.inner_text(".turn.assistant .text")
    assert text.strip(), "no answer"
    assert "tokens/s" in page.inner_text(".turn.assistant .foot")
    assert "JANG_4M" in page.inner_text("#model")
    shot(page, "answer")
    page.reload()
    assert page.inner_text(".turn.assistant .text") == text
    assert page.inner_text("#title") == "Say hi."


def test_page_retry_and_edit(page, s):
    short(page)
    ask(page, "Name a colour.")
    before = page.inner_text(".turn.assistant .text")
    page.click("text=retry")
    wait_true(page, DONE)
    assert page.inner_text(".turn.assistant .text") == before
    page.press("#input", "ArrowUp")
    assert page.input_value("#input") == "Name a colour." and page.locator(".turn").count() == 0


def test_page_text_never_becomes_markup(page, s):
    page.evaluate("""text => { now.turns = [{role: 'user', content: text},
        {role: 'assistant', reasoning: text, done: true,
         content: text + "\\n\\n```html\\n<i>x</i>\\n```\\n- a\\n- b\\n\\n|a|b|\\n|-|-|\\n|1|2|\\n\\n" +
             "[x](javascript:alert(1))",
         calls: [{name: 'f', arguments: '{"a": "<b>"}'}]}]; show() }""", HOSTILE)
    assert page.evaluate("window.bad") is None
    assert page.locator("#log img").count() == page.locator("#log script").count() == 0
    assert page.inner_text(".turn.assistant strong") == "bold"
    assert "<i>x</i>" in page.inner_text(".block pre") and page.locator(".turn.assistant li").count() == 2
    assert page.locator("#log a").count() == 0 and page.locator("#log td").count() == 2
    assert page.locator("details").count() == 2 and not page.locator("details").first.evaluate("d => d.open")
    shot(page, "markdown")


def test_page_stop(page, s):
    page.evaluate("() => { settings = {temperature: 0} }")
    page.fill("#input", "Write a long story about a dog and a cat.")
    page.press("#input", "Enter")
    wait_true(page, "(document.querySelector('.turn.assistant .text')?.textContent.length || 0) > 20")
    page.keyboard.press("Escape")
    wait_true(page, DONE)
    assert "stopped" in page.inner_text(".turn.assistant .foot")


def test_page_errors_are_shown(page, s):
    page.evaluate("() => { settings = {temperature: 9} }")
    ask(page, "Hi")
    assert "temperature" in page.inner_text(".bad")


def test_page_on_a_phone_and_in_the_dark(page, s):
    page.set_viewport_size({"width": 390, "height": 780})
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark' }")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not page.locator("#side").evaluate("e => e.classList.contains('open')")
    page.click("#menu")
    page.wait_for_timeout(250)
    shot(page, "phone")
    page.keyboard.press("Escape")
    page.click("#gear")
    assert page.is_visible("#temperature")
    shot(page, "settings")


def main():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    path = browser_path()
    if not sync_playwright or not path:
        print("there is no", "chromium" if sync_playwright else "playwright", "here")
        print("0 passed, 0 failed, 1 skipped")
        return
    s = Server(small_model())
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])

        def fresh(test):
            def run():
                context = browser.new_context(viewport={"width": 1100, "height": 760})
                page = context.new_page()
                errors = []
                page.on("pageerror", lambda e: errors.append(str(e)))
                page.goto(s.url)
                page.wait_for_selector("#model b")
                test(page, s)
                context.close()
                assert not errors, errors
            run.__name__ = test.__name__
            return run
        failed = run_tests([fresh(f) for n, f in globals().items() if n.startswith("test_")])
        browser.close()
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
