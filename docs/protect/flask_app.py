"""A Flask API that lets nobody in without a good API key."""

import os

from apikeys import Client
from apikeys.flask import protect, verified
from flask import Flask, jsonify

keys = Client(os.environ.get("APIKEYS_URL", "http://127.0.0.1:8080"), os.environ["APIKEYS_KEY"])
requires = protect(keys)

app = Flask(__name__)


@app.get("/products")
@requires("products.read")
def products():
    return jsonify(owner=verified().key["owner_id"])


if __name__ == "__main__":
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", int(os.environ.get("PORT", 4000)), app, threaded=True)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
