"""What people see when not all is well: no login, no rights, a broker that is down."""

from audit import audit

WIDE = (1440, 900)
NARROW = (390, 844)
SIGN_IN = "(user, password) => { const form = document.querySelector('dialog form'); form.user.value = user; form.password.value = password; form.requestSubmit(); }"


def login(run, address):
    """A node that asks who one is: a form, a wrong password, a right one, and out again."""
    browser = run.browser
    browser.look(*WIDE, "light")
    browser.go(f"{address}/console/#/")
    browser.wait("document.querySelector('dialog[open] input[name=password]')", "no form to sign in with")
    run.picture("login-light-wide", whole=False)
    browser.evaluate(f"({SIGN_IN})('bob', 'wrong')")
    browser.wait("document.querySelector('dialog .error')?.innerText.includes('wrong')", "a wrong password is not told")
    browser.look(*NARROW, "dark")
    run.picture("login-refused-dark-narrow", whole=False)
    audit(browser, "a refused login")
    browser.look(*WIDE, "light")
    browser.evaluate(f"({SIGN_IN})('bob', 'bob-secret')")
    browser.wait("document.querySelector('main').innerText.includes('brokers running')", "a right password opens nothing")
    browser.wait("document.getElementById('user').innerText === 'bob'", "the user is not shown")
    run.picture("signed-in-light-wide", whole=False)
    browser.evaluate("document.getElementById('user').click()")
    browser.wait("document.querySelector('dialog[open] input[name=password]')", "signing out keeps the login")
    browser.key("Escape")
    browser.wait("!document.getElementById('notice').hidden", "without a login nothing is said")
    only(browser, "401")


def only(browser, *statuses):
    """These refusals are what was wanted; anything else that the page complains of is not."""
    strange = [text for text in browser.complaints if not any(status in text for status in statuses)]
    browser.complaints = []
    if strange:
        raise SystemExit(f"the page complains: {strange}")


def without_rights(run, address):
    """An authorizer, and somebody whom no rule gives anything."""
    browser = run.browser
    browser.look(*WIDE, "light")
    browser.open(f"{address}/console/#/")
    browser.evaluate("document.getElementById('user').click()")
    browser.wait("document.querySelector('dialog[open] input[name=password]')", "no form to sign in with")
    browser.evaluate(f"({SIGN_IN})('alice', 'alice-secret')")
    browser.wait("document.getElementById('user').innerText === 'alice'", "the other user is not shown")
    browser.wait("document.querySelector('main').innerText.includes('right to Describe the cluster')", "the overview does not say what is missing")
    if browser.evaluate("document.getElementById('health').innerText.includes('healthy')"):
        raise SystemExit("whoever may not see partitions is told that all is well")
    run.picture("no-rights-overview-light-wide", whole=False)
    for page, said in (("topics", "only those that rules allow"), ("groups", "only those that rules allow")):
        browser.evaluate(f"location.hash = '#/{page}'")
        browser.wait(f"document.querySelector('td.empty')?.innerText.includes('{said}')", f"{page} without rights: an empty table")
        run.picture(f"no-rights-{page}-light-wide", whole=False)
        audit(browser, f"{page} without rights")
    for page in ("topics/any", "configs", "topics/any/messages", "configs/broker/1"):
        browser.evaluate(f"location.hash = '#/{page}'")
        browser.wait("!document.getElementById('notice').hidden && document.getElementById('notice').innerText.includes('no right')", f"{page} without rights says nothing")
        browser.wait("!document.querySelector('main').innerText.includes('Loading')", f"{page} without rights goes on loading")
        run.picture(f"no-rights-{page.replace('/', '-')}-light-wide", whole=False)
        audit(browser, f"{page} without rights")
        browser.evaluate("location.hash = '#/groups'")
        browser.wait("document.getElementById('notice').hidden", "what was refused elsewhere is still told")
    only(browser, "403")


def trouble(run, address):
    """Broker 3 is down: every page says what that means for it."""
    browser = run.browser
    page = lambda where: browser.open(f"{address}/console/#/{where}")
    told = lambda text, what: browser.wait(f"document.body.innerText.includes('{text}')", what)
    for scheme, size, window in (("light", "wide", WIDE), ("dark", "wide", WIDE), ("light", "narrow", NARROW)):
        browser.look(*window, scheme)
        name = f"{scheme}-{size}"
        for where, shown, text in (
            ("", "overview", "Needs attention"), ("brokers", "brokers", "down"), ("topics?filter=trouble", "topics", "under-replicated"),
            ("topics/orders", "topic", "2 of 3 in sync"), ("topics/alone", "topic-offline", "offline"), ("topics/alone/messages", "messages-offline", "has no leader"),
            ("brokers/3", "broker", "down"), ("groups", "groups", "readers"), ("groups/readers", "group", "readers"), ("configs/broker/3", "configs", "does not answer"),
        ):
            page(where)
            told(text, f"{where} does not say “{text}” while a broker is down")
            run.picture(f"down-{shown}-{name}", whole=False)
            audit(browser, f"{where} while a broker is down")
    print("a broker that is down: pictures of every page", flush=True)
