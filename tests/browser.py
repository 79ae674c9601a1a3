"""
A real browser for the tests of our pages. It is Chromium without a window, driven by selenium
(https://www.selenium.dev). Test files that need it say pytest_plugins = 'browser'.

PYTEST_DONT_REWRITE: without this word, pytest warns that such a file has imported us already.
"""

import shutil

import pytest


@pytest.fixture(scope='session')
def chrome():
    """A selenium driver, one for all tests of a process. Skips where there is no browser."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    browser_path = shutil.which('chromium') or shutil.which('google-chrome')
    driver_path = shutil.which('chromedriver')
    if browser_path is None:
        pytest.skip('chromium is not installed')
    if driver_path is None:
        pytest.skip('chromedriver is not installed')

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    options.add_argument('--headless=new')
    options.add_argument('--no-sandbox')  # Chromium refuses root otherwise
    options.add_argument('--disable-dev-shm-usage')  # containers have little shared memory
    options.add_argument('--window-size=1280,900')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(driver_path)
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def severe_messages(driver):
    """The errors that the console has shown since the last call, as a list of texts."""
    entries = driver.get_log('browser')
    return [entry['message'] for entry in entries if entry['level'] == 'SEVERE']
