"""A FastAPI API that lets nobody in without a good API key."""

import os
import socket

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from verify import refusal_headers, verify

app = FastAPI()


def protect(*scopes):
    def key(request: Request):  # not async: FastAPI runs it in a thread, since it waits
        status, api_key, seconds = verify(request.headers, request.client.host, scopes)
        if status != 200:
            raise HTTPException(status, "refused", refusal_headers(status, seconds))
        return api_key

    return Depends(key)


@app.get("/products")
def products(api_key=protect("products.read")):
    return {"owner": api_key["owner_id"]}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", 4000))))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
