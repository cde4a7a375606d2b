package api

import (
	"context"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
	"github.com/apikeys-dev/apikeys/server/wire"
)

// ListApiKeyRefusals lists the refused uses of a key.
func (s *apiKeys) ListApiKeyRefusals(ctx context.Context, req *apikeysv1.ListApiKeyRefusalsRequest) (*apikeysv1.ListApiKeyRefusalsResponse, error) {
	found := faultsOf(ctx)
	before := found.pageToken(apikey.RefusalIDPrefix, req.GetPageToken())
	if err := found.err(); err != nil {
		return nil, err
	}
	if !apikey.IsID(apikey.IDPrefix, req.GetId()) {
		return nil, apikey.ErrNotFound
	}
	uses, more, total, err := s.store.Refusals(ctx, callerOf(ctx).Organization, req.GetId(), before, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	var page page[*apikeysv1.ApiKeyRefusal]
	for i := range uses {
		if !page.add(wire.RefusedUse(&uses[i])) {
			more = true
			break
		}
	}
	resp := &apikeysv1.ListApiKeyRefusalsResponse{Refusals: page.rows, Total: total}
	if more {
		resp.NextPageToken = encodePageToken(page.rows[len(page.rows)-1].GetId())
	}
	return resp, nil
}
