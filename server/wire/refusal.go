package wire

import (
	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// RefusedUse returns the message of u.
func RefusedUse(u *apikey.RefusedUse) *apikeysv1.ApiKeyRefusal {
	return &apikeysv1.ApiKeyRefusal{
		Id:        u.ID,
		At:        Timestamp(u.At),
		Code:      refusalCodes.number[u.Code],
		Via:       refusalVias.number[u.Via],
		Ip:        u.IP,
		UserAgent: u.UserAgent,
		Caller:    actorMessage(u.Caller),
	}
}
