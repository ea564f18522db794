"""Bodies of the household's requests and answers, by name, as the OpenAPI document shows them."""

#: The child of every example.
MIA = "b649ce27-57a3-4439-a54f-589180e1b69e"
#: A JWT, cut short.
TOKEN = "eyJhbGciOiJIUzI1NiIs..."
#: Nobody's: whoever tries an example erases no household by it.
PASSWORD = "our-own-password"

_PAIR = {"access_token": TOKEN, "refresh_token": TOKEN, "token_type": "bearer"}
_MIA = {"name": "Mia", "is_kids": True, "parental_rating": "PG", "avatar_url": None}

CREDENTIALS = {"household": {"email": "parent@example.com", "password": "watch-together-7"}}
REFRESH = {"next pair": {"refresh_token": TOKEN}}
TOKEN_PAIR = {"account token": _PAIR}
PROFILE_TOKEN = {"profile token": {**_PAIR, "scope": "profile", "profile_id": MIA}}
PROFILE_REQUEST = {"child": _MIA}
PROFILE = {"child": {"id": MIA, **_MIA}}
PIN_CHANGE = {
    "first PIN": {"new_pin": "0420"},
    "another PIN": {"new_pin": "2580", "current_pin": "0420"},
}
PIN = {"PIN": {"pin": "0420"}}
PIN_RESET = {"forgotten PIN": {"password": PASSWORD, "new_pin": "2580"}}
PIN_VERIFIED = {"right PIN": {"verified": True, "pin_token": TOKEN}}
PIN_STATUS = {
    "open": {"has_pin": True, "locked_until": None},
    "locked": {"has_pin": True, "locked_until": "2026-11-24T01:24:56.495432Z"},
}
DETAIL = {"done": {"detail": "The PIN is set."}}
