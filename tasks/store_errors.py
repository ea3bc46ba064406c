"""The errors of MLflow and of its artifact store in words: what is wrong, whose turn it is, and which variable to set.

InputError   credentials, permission, certificate, bucket: a person must set something      not tried again
Refused      MLflow answered, and has no such thing, or will not do it                       by its code
Outage       whatever else: it may answer again later
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from windvane.tasks.addresses import shown
from windvane.tasks.errors import InputError, Outage, WindvaneError

NOT_THERE, THERE_ALREADY = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"

# What clients raise, by module: only those that are loaded can have raised it. None of them is imported for this.
_RAISED = {
    "mlflow.exceptions": ("MlflowException",),
    "requests.exceptions": ("RequestException",),
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
# Words of the S3 protocol. MLflow hands on some errors as text only.
_NO_KEYS = re.compile(r"NoCredentials|PartialCredentials|Unable to locate credentials")
_BAD_KEYS = re.compile(
    r"AccessDenied|InvalidAccessKeyId|InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
    r"|AllAccessDisabled|\(403\)|\b403 Forbidden"
)
_NO_BUCKET = re.compile(r"NoSuchBucket")
_OF_STORAGE = re.compile(r"botocore|boto3|ClientError\(|NoCredentialsError|S3UploadFailedError|EndpointConnectionError")
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification|SSL validation failed")
_CAUSE = re.compile(
    r"\[Errno -?\d+\] ([^'\")\]]+)|(timed out)|(Connection refused)|(Could not connect to the endpoint)"
)
_STATUS = re.compile(r"failed with error code (\d{3})")
_SHOWN_LETTERS = 200
# Codes of requests that would be refused again.
_UNWILLING = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_CONFLICT")


class Refused(WindvaneError):
    """MLflow answered with one of its error codes (`code`)."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def in_words(where: str, own: bool = False) -> Iterator[None]:
    """Raise what MLflow's clients raise as errors of ours. `where`: the tracking URI; own: it is the project's own store."""
    try:
        yield
    except (WindvaneError, FileNotFoundError):
        raise
    except Exception as e:
        if not isinstance(e, (OSError, ImportError, *_loaded())):
            raise
        raise _worded(e, where, own) from e


def _loaded() -> tuple[type[Exception], ...]:
    found = (getattr(sys.modules.get(module), name, None) for module, names in _RAISED.items() for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def _worded(error: Exception, where: str, own: bool) -> WindvaneError:
    chain = _chain(error)
    text = " ".join(f"{type(e).__module__}.{type(e).__name__} {e}" for e in chain)
    code, status = str(getattr(error, "error_code", "")), _status(chain)
    brief = _brief(error, text)
    at = f"MLflow's store {shown(where)}" if own else f"MLflow at {shown(where)}"
    if _OF_STORAGE.search(text) and status is None:
        return _of_storage(text, brief, at)
    if (barred := _barred(text, code, status, brief)) is not None:
        return InputError(f"{at} {barred}")
    if code in (NOT_THERE, THERE_ALREADY, *_UNWILLING) or status == 404:
        return Refused(f"{at} refused this: {brief}", code or NOT_THERE)
    if any(isinstance(e, ImportError) for e in chain):
        return InputError(f"{at}: its artifact store needs a library: {brief}. Install it: pip install 'windvane[s3]'")
    remedy = "Look at its file and the disk" if own else "Start it, or mend MLFLOW_TRACKING_URI"
    return Outage(f"{at} does not answer: {brief}. {remedy}")


def _barred(text: str, code: str, status: int | None, brief: str) -> str | None:
    """Why MLflow's server lets nobody in, or not this one; None: that is not it."""
    if _CERTIFICATE.search(text):
        return "shows a certificate that is not trusted. Set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's file"
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return _credentials()
    if status == 403 or code == "PERMISSION_DENIED":
        return (
            f"does not allow this ({brief}). Have its administrator grant EDIT on the experiment and the registered model, or "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who has it"
        )
    return None


def _of_storage(text: str, brief: str, at: str) -> WindvaneError:
    """An error of S3 itself, to which this machine wrote directly."""
    store = f"the artifact store of {at}"
    if _NO_KEYS.search(text):
        return InputError(f"{store}: no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if _CERTIFICATE.search(text):
        return InputError(f"{store}: its certificate is not trusted. Set AWS_CA_BUNDLE to the file of its authority")
    if found := _BAD_KEYS.search(text):
        return InputError(
            f"{store}: refuses these credentials ({found[0]}). Mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have "
            "them allowed to list, read and write there"
        )
    if _NO_BUCKET.search(text):
        return InputError(f"{store}: its bucket is not there ({brief}). Make it, or mend the server's artifact root")
    return Outage(f"{store} does not answer: {brief}. Start it, or mend MLFLOW_S3_ENDPOINT_URL")


def _credentials() -> str:
    """What is wrong with the credentials that are set, if any are."""
    if os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("MLFLOW_TRACKING_PASSWORD"):
        return "does not accept these credentials. Mend MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "does not accept this token. Mend MLFLOW_TRACKING_TOKEN"
    return "asks for credentials. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status that MLflow's server answered with."""
    for one in chain:
        answer = getattr(one, "response", None)
        if (number := getattr(answer, "status_code", None)) is not None:
            return int(number)
        if found := _STATUS.search(str(one)):
            return int(found[1])
    return None


def _brief(error: BaseException, text: str) -> str:
    """The reason in a few words."""
    if found := _CAUSE.search(text):
        return next(part for part in found.groups() if part).strip()
    line = " ".join(str(error).split()) or type(error).__name__
    return line[:_SHOWN_LETTERS].rstrip(". ")
