package exec

import (
	"context"
	"slices"

	"github.com/dasudian/dsdb"
	"github.com/dasudian/dsdb/internal/wire"
)

// Measurements returns the names of the measurements that have a series in one
// of the sources, sorted. Each other node is asked once for all of its sources; a
// shard that it no longer has has none.
func Measurements(ctx context.Context, sources []Source) ([]string, error) {
	return names(ctx, sources, measurementsRequest, nil, func(s Source) ([]string, error) { return s.Measurements(ctx) })
}

// TagKeys returns the tag keys that series of a measurement have in the sources,
// sorted. Each other node is asked once, as by Measurements.
func TagKeys(ctx context.Context, sources []Source, measurement string) ([]string, error) {
	return names(ctx, sources, tagKeysRequest, wire.AppendString(nil, measurement), func(s Source) ([]string, error) {
		return s.TagKeys(ctx, measurement)
	})
}

// names merges what sources answer: those of this node to ask, those of other
// nodes to a request, which goes on with their shards.
func names(ctx context.Context, sources []Source, kind requestKind, request []byte, ask func(Source) ([]string, error)) ([]string, error) {
	var shards []openShard
	var all []string
	for _, s := range sources {
		if far, ok := s.(*remoteSource); ok {
			shards = append(shards, openShard{id: far.id, remote: far.r})
			continue
		}
		own, err := ask(s)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(all, own) { // most shards have the same
			all = append(all, own...)
			slices.Sort(all)
			all = slices.Compact(all)
		}
	}
	nodes, of := remotes(shards)
	lists := make([][]string, len(nodes))
	err := askAll(ctx, nodes, func(ctx context.Context, r *Remote) (err error) {
		var ids []dsdb.ShardID
		for _, i := range of[r] {
			ids = append(ids, shards[i].id)
		}
		lists[slices.Index(nodes, r)], err = r.strings(ctx, kind, appendShards(slices.Clone(request), ids))
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, l := range lists {
		all = append(all, l...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
