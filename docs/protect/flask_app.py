"""A Flask API that lets nobody in without a good API key."""

import functools
import os

from flask import Flask, g, jsonify, request
from verify import refusal_headers, verify

app = Flask(__name__)


def protect(*scopes):
    def decorate(view):
        @functools.wraps(view)
        def protected(*args, **kwargs):
            status, g.api_key, seconds = verify(request.headers, request.remote_addr, scopes)
            if status != 200:
                return jsonify(error="refused"), status, refusal_headers(status, seconds)
            return view(*args, **kwargs)

        return protected

    return decorate


@app.get("/products")
@protect("products.read")
def products():
    return jsonify(owner=g.api_key["owner_id"])


if __name__ == "__main__":
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", int(os.environ.get("PORT", 4000)), app, threaded=True)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
