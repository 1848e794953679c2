"""Every text that people read on the pages, in one place: a language is one more table with the same names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_ENGLISH: Final = {
    "lang": "en",
    "account": "Your account",
    "account_back": "Back to your account",
    "address": "Address",
    "again": "Try again",
    "cancel": "Cancel",
    "change_intro": "Your password has to be changed before you go on.",
    "change_title": "Choose a new password",
    "code": "Code",
    "code_help": "6 digits from your authenticator app, or one of your recovery codes",
    "code_title": "Enter your code",
    "codes_intro": "Each of them logs you in once, when you have no authenticator app at hand. "
    "Keep them where nobody else finds them: they are not shown again.",
    "codes_left": "Recovery codes that are left: {count}",
    "codes_new": "Make new recovery codes",
    "codes_title": "Your recovery codes",
    "confirm": "Confirm",
    "continue": "Continue",
    "continue_text": "You are logged in, and go on in a moment.",
    "continue_title": "Logged in",
    "current_password": "Current password",
    "device_bound": "bound to this browser by a key",
    "device_forget": "Forget",
    "device_script": "This needs JavaScript, and the browser in which you had this device remembered.",
    "device_unknown": "This browser does not have the key of the device any more.",
    "device_until": "until {when}",
    "devices": "Remembered devices",
    "devices_none": "No device is remembered.",
    "enrol_intro": "Scan this with your authenticator app, then enter the code that it shows.",
    "enrol_required": "This account needs a second factor.",
    "enrol_secret": "Or type this key into the app:",
    "enrol_title": "Set up an authenticator app",
    "error_busy": "There is more to do than can be done now. Try again in a while.",
    "error_code": "This code does not count. Codes work once, and for about a minute.",
    "error_credentials": "These credentials are not accepted.",
    "error_form": "This page was open for too long. Try again.",
    "error_leaked": "This password is in lists of leaked ones. Choose another.",
    "error_like_name": "The password must not be much like your user name.",
    "error_mismatch": "The two passwords are not the same.",
    "error_passkey_name": "A passkey needs a name.",
    "error_sso": "Logging in with {name} is not possible at the moment. "
    "Use your password, or try again in {seconds} s.",
    "error_not_offered": "Nobody can log in at the moment; who is logged in stays so. Try again in {seconds} seconds.",
    "error_over": "This took too long, or was done already. Begin again.",
    "error_reset_over": "This link is used up, or too old. Ask for another.",
    "error_same": "This is your current password. Choose another.",
    "error_throttled": "Too many attempts. Try again in {seconds} s.",
    "error_too_long": "This password is too long.",
    "error_too_short": "A password has at least {count} characters.",
    "error_unavailable": "Logging in is not possible at the moment. Try again in a while.",
    "factor_add": "Set up an authenticator app",
    "factor_name": "Authenticator app",
    "factor_remove": "Remove",
    "factor_since": "since {when}",
    "factors": "Second factor",
    "factors_none": "Your password alone logs you in. A second factor keeps others out who learn it.",
    "home_login": "Log in",
    "last_seen": "last used {when}",
    "log_in": "Log in",
    "login_title": "Log in",
    "logged_out_text": "You are logged out.",
    "logged_out_title": "Goodbye",
    "logout": "Log out",
    "logout_everywhere": "Log out everywhere",
    "logout_text": "Do you want to log out?",
    "logout_title": "Log out",
    "new_password": "New password",
    "new_password_help": "At least {count} characters. A few words in a row are good.",
    "or": "or",
    "password": "Password",
    "password_change": "Change password",
    "password_changed": "Your password is changed, and you are logged out everywhere else.",
    "passkey_add": "Add a passkey",
    "passkey_again": "Log in again to add or remove passkeys",
    "passkey_name": "Name",
    "passkey_name_example": "My phone",
    "passkey_rename": "Rename",
    "passkey_script": "Passkeys need JavaScript, and a browser that knows them. Everything else works without.",
    "passkey_use": "Log in with a passkey",
    "passkeys": "Passkeys",
    "passkeys_intro": "A passkey logs you in with your fingerprint, your face or the PIN of your device. "
    "It works on this site alone, so nobody can trick you into giving it away.",
    "passkeys_none": "You have no passkey yet.",
    "provisional_text": "Nobody can log in at the moment, and your session ends soon. You can go on for 15 minutes, "
    "with less than you may otherwise do.",
    "provisional_device_text": "Nobody can log in at the moment, but this device is known by its key. You can go on "
    "for 15 minutes, with less than you may otherwise do.",
    "provisional_title": "Go on for a while",
    "remember": "Remember this device for {days} days",
    "repeat_password": "New password, once more",
    "request_id": "Reference",
    "reset_done": "Your new password is set. Log in with it.",
    "reset_title": "Set a new password",
    "save": "Save",
    "session_end": "End",
    "session_this": "this browser",
    "sessions": "Where you are logged in",
    "since": "since {when}",
    "sso_go": "You are sent to where you log in.",
    "sso_intro": "Who is logged in there can log in here as you.",
    "sso_link": "Connect",
    "sso_linked": "connected",
    "sso_links": "Connected accounts",
    "sso_unlink": "Disconnect",
    "sso_unlinked": "not connected",
    "sso_use": "Continue with {name}",
    "user_name": "User name",
    "wrong_title": "This cannot go on",
}
ENGLISH: Final[Mapping[str, str]] = MappingProxyType(_ENGLISH)
LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({"en": ENGLISH})


def texts_for(accept_language: str) -> Mapping[str, str]:
    """Give the texts in the language that the browser likes best of those there are (RFC 9110 §12.5.4)."""
    liked: list[tuple[float, str]] = []
    for entry in accept_language.split(",")[:16]:
        name, _, parameters = entry.strip().partition(";")
        weight = parameters.strip().removeprefix("q=")
        try:
            liked.append((float(weight) if weight else 1.0, name.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    for share, language in sorted(liked, key=lambda each: -each[0]):
        if share > 0 and language in LANGUAGES:
            return LANGUAGES[language]
    return ENGLISH
