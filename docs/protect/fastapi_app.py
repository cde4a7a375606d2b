"""A FastAPI API that lets nobody in without a good API key."""

import os
import socket

import uvicorn
from apikeys import Client
from apikeys.fastapi import protect
from fastapi import Depends, FastAPI

keys = Client(os.environ.get("APIKEYS_URL", "http://127.0.0.1:8080"), os.environ["APIKEYS_KEY"])
requires = protect(keys)

app = FastAPI()


@app.get("/products")
def products(verified=Depends(requires("products.read"))):
    return {"owner": verified.key["owner_id"]}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", 4000))))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # The client's address is the connection's: uvicorn would believe X-Forwarded-For.
    uvicorn.Server(uvicorn.Config(app, log_level="warning", proxy_headers=False)).run(sockets=[listener])
