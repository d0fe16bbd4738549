"""Pages that a browser opens from disk, without a network, and what goes wrong in them."""


class WatchedPages:
    """Opens files, refuses all requests, and collects these and the errors of scripts.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
        Browser that opens the pages.
    site : Path, default=None
        Folder whose files the pages may load; by default, a page loads only itself.

    Attributes
    ----------
    faults : list of str
        Requests to elsewhere, errors in the console, and errors that no script caught.
    """

    def __init__(self, browser, site=None):
        self.browser = browser
        self.own = ("data:", "blob:") if site is None else ("data:", "blob:", f"{site.as_uri()}/")
        self.contexts = []
        self.faults = []

    def open(self, path, **options):
        """Return the page of a file, in a context with these options of playwright."""
        context = self.browser.new_context(**{"offline": True} | options)
        self.contexts.append(context)
        page = context.new_page()
        url = path.as_uri()
        page.on("request", lambda request: self._note_request(request.url, url))
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.goto(url)
        return page

    def close(self):
        for context in self.contexts:
            context.close()

    def _note_request(self, requested, url):
        is_inside = requested.partition("#")[0] == url or requested.startswith(self.own)
        if not is_inside:
            self.faults.append(f"request: {requested}")

    def _note_message(self, message):
        if message.type == "error":
            self.faults.append(f"console: {message.text}")
