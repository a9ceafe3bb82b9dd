# A headless browser for the tests of pages, and what they ask it.
import os
import shutil
import sys

try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
except ImportError:
    webdriver = None

SKIPPED = 77  # tests/CMakeLists.txt: SKIP_RETURN_CODE
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def require():
    """Leaves with the status that ctest takes for "skipped" where there is no browser."""
    missing = [name for name, found in (("python3-selenium", webdriver), ("chromium", CHROMIUM),
                                        ("chromium-driver", DRIVER)) if not found]
    if missing:
        print(f"skipped: no {', no '.join(missing)}; cmake/setup.sh browser installs what is missing")
        sys.exit(SKIPPED)


class Browser:
    """Chromium on pages from files. It resolves no host names, so nothing can come from a network."""

    def __init__(self):
        options = Options()
        options.binary_location = CHROMIUM
        for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                         "--lang=en-US", "--host-resolver-rules=MAP * ~NOTFOUND"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # which Chromium refuses to root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)

    def open(self, page, state="", width=1280, height=900, dark=False):
        """Loads a page from nothing, in a window of this size."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.driver.get("about:blank")
        self.driver.get(f"file://{page}#{state}")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys):
        """Keys to whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def complaints(self):
        """What the console has shown since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self, path):
        """Of the whole page."""
        size = self.js("return [innerWidth, document.documentElement.scrollHeight]")
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600})
        self.driver.save_screenshot(str(path))

    def quit(self):
        self.driver.quit()
